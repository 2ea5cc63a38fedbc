"""A web server's access log, counted in parts and added up: map and reduce.

Shows      dynamic task mapping over a list that only an upstream task knows (`expand`), an argument that
           is the same for all (`partial`), names for the mapped instances in the UI, an `expand` over a
           literal, and a reduce that receives all results in order. Each part's result is some 12 kB:
           large enough to lie on the volume as a file of its own, with a reference in the database.
Ends       success: `count` has 4 instances, `check_budget` has 2, `add_up` returns
           {"requests": 10000, "errors": 509, "p50_ms": 504, "p99_ms": 991}.
Make it yours: let `list_parts` return paths or object names, and open them in `count`.
"""

from __future__ import annotations

import random

from airflow.sdk import dag, get_current_context, task

REQUESTS_PER_PART = 2_500


@dag(schedule=None, catchup=False, tags=["example"], doc_md=__doc__)
def access_log_digest():
    @task
    def list_parts() -> list[dict]:
        """What there is to count. Here: seeds from which each part is made anew, always the same."""
        return [{"name": f"access-{hour:02d}.log", "seed": hour} for hour in (0, 6, 12, 18)]

    @task(map_index_template="{{ part_name }}", multiple_outputs=False)
    def count(part: dict, requests: int) -> dict:
        """Count one part. As many of these run at once as there are slots."""
        get_current_context()["part_name"] = part["name"]
        dice = random.Random(part["seed"])
        durations = [dice.randrange(1, 1_001) for _ in range(requests)]
        errors = sum(dice.random() < 0.05 for _ in range(requests))
        print(f"{part['name']}: {requests} requests, {errors} errors")
        return {"errors": errors, "durations_ms": durations}

    @task
    def add_up(counts: list[dict]) -> dict:
        """All counts, in the order of the parts. A quantile needs every single value, so the parts bring them all."""
        durations, errors = [], 0
        for part in counts:
            durations += part["durations_ms"]
            errors += part["errors"]
        durations.sort()
        share = len(durations) // 100
        p50, p99 = durations[50 * share], durations[99 * share]
        return {"requests": len(durations), "errors": errors, "p50_ms": p50, "p99_ms": p99}

    @task
    def check_budget(total: dict, limit_percent: float) -> str:
        """Hold the digest against a limit for errors."""
        percent = 100 * total["errors"] / total["requests"]
        verdict = "within" if percent <= limit_percent else "over"
        return f"{percent:.1f} % errors: {verdict} {limit_percent} %"

    counts = count.partial(requests=REQUESTS_PER_PART).expand(part=list_parts())
    check_budget.partial(total=add_up(counts)).expand(limit_percent=[1.0, 10.0])


access_log_digest()

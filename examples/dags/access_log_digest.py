"""A web server's access log, counted in parts and added up: map and reduce.

Shows      dynamic task mapping over a list that only an upstream task knows (`expand`), an argument that
           is the same for all (`partial`), names for the mapped instances in the UI, an `expand` over a
           literal, and a reduce that receives all results in order.
Ends       success: `count` has 4 instances, `check_budget` has 2, `add_up` returns
           {"requests": 1000, "errors": 49, "bytes": 25693775, "slowest_ms": 1000}.
Make it yours: let `list_parts` return paths or object names, and open them in `count`.
"""

from __future__ import annotations

import random

from airflow.sdk import dag, get_current_context, task

REQUESTS_PER_PART = 250


@dag(schedule=None, catchup=False, tags=["example"], doc_md=__doc__)
def access_log_digest():
    @task
    def list_parts() -> list[dict]:
        """What there is to count. Here: seeds from which each part is made anew, always the same."""
        return [{"name": f"access-{hour:02d}.log", "seed": hour} for hour in (0, 6, 12, 18)]

    @task(map_index_template="{{ part_name }}")
    def count(part: dict, requests: int) -> dict:
        """Count one part. As many of these run at once as there are slots."""
        get_current_context()["part_name"] = part["name"]
        dice = random.Random(part["seed"])
        errors = sent = slowest = 0
        for _ in range(requests):
            errors += dice.random() < 0.05
            sent += dice.randrange(200, 50_000)
            slowest = max(slowest, dice.randrange(1, 1_001))
        print(f"{part['name']}: {requests} requests, {errors} errors")
        return {"requests": requests, "errors": errors, "bytes": sent, "slowest_ms": slowest}

    @task
    def add_up(counts: list[dict]) -> dict:
        """All counts, in the order of the parts: a list that is read one value at a time."""
        total = {"requests": 0, "errors": 0, "bytes": 0, "slowest_ms": 0}
        for part in counts:
            for key in ("requests", "errors", "bytes"):
                total[key] += part[key]
            total["slowest_ms"] = max(total["slowest_ms"], part["slowest_ms"])
        return total

    @task
    def check_budget(total: dict, limit_percent: float) -> str:
        """Hold the digest against a limit for errors."""
        percent = 100 * total["errors"] / total["requests"]
        verdict = "within" if percent <= limit_percent else "over"
        return f"{percent:.1f} % errors: {verdict} {limit_percent} %"

    counts = count.partial(requests=REQUESTS_PER_PART).expand(part=list_parts())
    check_budget.partial(total=add_up(counts)).expand(limit_percent=[1.0, 5.0])


access_log_digest()

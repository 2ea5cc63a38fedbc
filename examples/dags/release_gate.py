"""A release gate: look at the test figures, choose a way, and clean up whatever happened.

Shows      a branch (`@task.branch`) on an XCom, a short circuit, an empty join task, and the trigger rules
           that make joins work: `none_failed_min_one_success`, `one_failed`, `all_done`.
Ends       success. The figures are good, so `canary` runs and `hold` is skipped, `published` joins
           both ways, `page_somebody` is skipped since nothing failed, `tidy_up` runs in any case,
           and `announce` is skipped behind the short circuit. What was chosen stands in `choose`'s
           XCom `skipmixin_key`: {"followed": ["canary"]}.
Try also   trigger it with the conf {"failed_tests": 3}: then `hold` runs and `canary` is skipped.
"""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Param, dag, get_current_context, task


@dag(
    schedule=None,
    catchup=False,
    tags=["example"],
    doc_md=__doc__,
    params={
        "failed_tests": Param(0, type="integer", minimum=0),
        "coverage": Param(87.5, type="number", minimum=0, maximum=100),
        "public": Param(False, type="boolean", description="announce the release to everybody"),
    },
)
def release_gate():
    @task
    def measure() -> dict:
        """Collect what the decision is made from."""
        params = get_current_context()["params"]
        return {"failed_tests": params["failed_tests"], "coverage": params["coverage"]}

    @task.branch
    def choose(figures: dict) -> str:
        """Name the task to go on with. The other way is skipped."""
        good = figures["failed_tests"] == 0 and figures["coverage"] >= 80
        return "canary" if good else "hold"

    @task
    def canary() -> str:
        return "one machine in a hundred has the new version"

    @task
    def hold() -> str:
        return "the old version stays"

    @task(trigger_rule="one_failed")
    def page_somebody() -> None:
        print("a task of this release failed")

    @task.short_circuit
    def is_public() -> bool:
        """False skips all that comes after."""
        return get_current_context()["params"]["public"]

    @task
    def announce() -> None:
        print("there is a new version")

    @task(trigger_rule="all_done")
    def tidy_up() -> str:
        return "tidy"

    figures = measure()
    ways = [canary(), hold()]
    # A join behind a branch: with the default rule it would be skipped together with the way not taken.
    published = EmptyOperator(task_id="published", trigger_rule="none_failed_min_one_success")

    choose(figures) >> ways >> published
    ways >> page_somebody()
    published >> is_public() >> announce()
    ways >> tidy_up()


release_gate()

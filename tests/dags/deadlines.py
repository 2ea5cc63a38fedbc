"""Runs that are needed by a time: two that are late, one that is not."""

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, Param, SyncCallback, task


def late(context, greeting):
    """Runs in a worker."""
    run = context["dag_run"]
    with Path(run["conf"]["journal"]).open("a") as journal:
        journal.write(f"{greeting}: {run['dag_run_id']} is {run['state']}, needed by {context['deadline']['deadline_time'][:4]}\n")


journal = {"journal": Param("", type="string")}

with DAG(
    "deadline_late",
    schedule=None,
    params=journal,
    deadline=[
        DeadlineAlert(
            name="queued",
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(seconds=0.5),
            callback=SyncCallback(late, {"greeting": "queued"}),
        ),
        DeadlineAlert(
            name="long ago",
            reference=DeadlineReference.FIXED_DATETIME(datetime(2001, 1, 1, tzinfo=timezone.utc)),
            interval=timedelta(hours=1),
            callback=SyncCallback(late, {"greeting": "fixed"}),
        ),
        DeadlineAlert(
            name="never",
            reference=DeadlineReference.AVERAGE_RUNTIME(max_runs=5, min_runs=5),
            interval=timedelta(hours=1),
            callback=SyncCallback(late, {"greeting": "average"}),
        ),
    ],
):

    @task
    def slow(**context):
        while not Path(context["params"]["journal"] + ".go").exists():
            time.sleep(0.05)

    slow()

with DAG(
    "deadline_kept",
    schedule=None,
    params=journal,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=1),
        callback=SyncCallback(late, {"greeting": "never"}),
    ),
):
    EmptyOperator(task_id="leaf")

with DAG(
    "deadline_async",
    schedule=None,
    params=journal,
    deadline=DeadlineAlert(
        reference=DeadlineReference.FIXED_DATETIME(datetime(2001, 1, 1, tzinfo=timezone.utc)),
        interval=timedelta(hours=1),
        callback=AsyncCallback("asyncio.sleep", {"delay": 0.1, "result": "slept"}),
    ),
):
    EmptyOperator(task_id="leaf")

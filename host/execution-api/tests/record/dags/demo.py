"""The DAGs of the recorded requests. Nothing here is ever run: tasks are started and ended by hand."""

from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, TaskGroup, task, teardown

with DAG("demo", schedule=None, start_date=datetime(2024, 1, 1), tags=["t", "a"], catchup=False):
    for name in ("push", "pull", "skips", "sensor", "defers", "branch", "left", "right", "named", "asks", "trig", "late"):
        EmptyOperator(task_id=name)
    EmptyOperator(task_id="fails", retries=2)
    EmptyOperator(
        task_id="asset_out",
        outlets=[Asset("a", "s3://bucket/a"), Asset("gone", "s3://bucket/gone"), AssetAlias("al")],
    )
    with TaskGroup("g"):
        EmptyOperator(task_id="one")
        with TaskGroup("inner"):
            EmptyOperator(task_id="two")

    @task
    def square(x):
        return x * x

    square.expand(x=[1, 2, 3])

with DAG("fast", schedule=None, start_date=datetime(2024, 1, 1), fail_fast=True):
    EmptyOperator(task_id="boom")
    EmptyOperator(task_id="busy")
    EmptyOperator(task_id="waiting")
    EmptyOperator(task_id="done")

    @teardown
    def cleanup():
        pass

    cleanup()

with DAG("other", schedule=None, start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="e", retries=1)

with DAG("consumer", schedule=[Asset("a", "s3://bucket/a")], start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="c")

with DAG("by_alias", schedule=[AssetAlias("al")], start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="c")

with DAG("sleeping", schedule=[Asset("a", "s3://bucket/a")], start_date=datetime(2024, 1, 1), is_paused_upon_creation=True):
    EmptyOperator(task_id="c")

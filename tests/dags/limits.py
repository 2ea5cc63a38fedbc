"""Pools, max_active_tasks and max_active_tis_per_dag, told by how many tasks run at once."""

import time
from pathlib import Path

from airflow.sdk import DAG, Param, get_current_context, task


def stay():
    context = get_current_context()
    with Path(context["params"]["journal"]).open("a") as journal:
        journal.write("+\n")
        journal.flush()
        time.sleep(0.3)
        journal.write("-\n")


params = {"journal": Param("", type="string")}

with DAG("limited_by_max_active_tasks", schedule=None, catchup=False, max_active_tasks=2, params=params):

    @task
    def one(number):
        stay()

    one.expand(number=list(range(6)))

with DAG("limited_by_task", schedule=None, catchup=False, params=params):

    @task(max_active_tis_per_dag=1)
    def two(number):
        stay()

    two.expand(number=list(range(4)))

with DAG("limited_by_pool", schedule=None, catchup=False, params=params):

    @task(pool="narrow", pool_slots=2)
    def three(number):
        stay()

    three.expand(number=list(range(4)))

"""A chain of 200 tasks; each hands a number on."""

from airflow.sdk import DAG, task


@task
def step(number):
    return number + 1


with DAG("chain_200", schedule=None, catchup=False):
    value = 0
    for index in range(200):
        value = step.override(task_id=f"t{index:03d}")(value)

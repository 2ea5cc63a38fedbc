"""Fifty DAGs of ten tasks each, in diamonds."""

from airflow.sdk import DAG, task


@task
def step():
    pass


for index in range(50):
    with DAG(f"diamond_{index:02d}", schedule=None, catchup=False):
        steps = [step.override(task_id=f"t{number}")() for number in range(10)]
        steps[0] >> steps[1:5] >> steps[5]
        steps[5] >> steps[6:9] >> steps[9]

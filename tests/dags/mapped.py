"""200 instances of a task, over a list that is known at run time only, and their sum."""

from airflow.sdk import DAG, task


@task
def numbers():
    return list(range(200))


@task
def double(number):
    return number * 2


@task
def add_up(doubled):
    return sum(doubled)


with DAG("mapped_200", schedule=None, catchup=False, max_active_tasks=32):
    add_up(double.expand(number=numbers()))

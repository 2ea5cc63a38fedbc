"""A task that no executor of ours starts, because its pool does not exist: the test hands it to Airflow's supervisor."""

from airflow.sdk import DAG, task


@task(pool="of_nobody")
def greet():
    print("hello from Airflow's own supervisor")
    return {"greeting": "hello", "pad": "p" * 20_000}


@task
def measure(greeting):
    return len(greeting["pad"])


with DAG("official", schedule=None, catchup=False):
    measure(greet())

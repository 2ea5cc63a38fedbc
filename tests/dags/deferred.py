"""A task that waits in the triggerer, not in a worker."""

from datetime import timedelta

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, task


@task
def after():
    return "waited"


with DAG("deferred", schedule=None, catchup=False):
    TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=2), deferrable=True) >> after()

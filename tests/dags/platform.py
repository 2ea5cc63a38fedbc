"""Tasks whose containers are taken from them."""

import time
from datetime import datetime
from pathlib import Path

from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, Param, get_current_context, task

OF_ALL = {"schedule": None, "catchup": False, "params": {"journal": Param("", type="string")}}


def note(what):
    context = get_current_context()
    with Path(context["params"]["journal"]).open("a") as journal:
        journal.write(f"{context['ti'].task_id} try {context['ti'].try_number} {what}\n")


@task
def endless():
    note("began")
    time.sleep(600)


with DAG("platform_cancelled", **OF_ALL):
    endless()


# Modal itself delivers the input again when its container dies.
@task(executor_config={"retries": 1})
def twice():
    note("began")
    if get_current_context()["ti"].try_number == 1:
        time.sleep(600)


with DAG("platform_redelivered", **OF_ALL):
    twice()


def second_time():
    note("poked")
    context = get_current_context()
    return context["ti"].get_first_reschedule_date(context) is not None


with DAG("platform_reschedule", start_date=datetime(2026, 1, 1), **OF_ALL):
    PythonSensor(task_id="sensor", python_callable=second_time, mode="reschedule", poke_interval=3)

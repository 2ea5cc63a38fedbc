"""Callbacks of DAGs and tasks that write down that they ran, and with what context."""

import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, Variable, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException


def write(context, line):
    with Path(context["dag_run"].conf["journal"]).open("a") as journal:
        journal.write(f"{line}\n")


def note(what):
    def callback(context):
        ti = context["ti"]
        print(f"noting {what}")
        write(context, f"{what}: {ti.task_id}[{ti.map_index}] try {ti.try_number} reason {context.get('reason')}")

    return callback


def broken(context):
    raise RuntimeError("this callback is broken")


def curious(context):
    """What a callback may look at besides its context: XComs and variables."""
    pulled = context["ti"].xcom_pull(task_ids="produce")
    write(context, f"pulled {pulled}, variable {Variable.get('callback_greeting', default='none')}")


def hanging(context):
    write(context, "hangs")
    time.sleep(600)


journal = {"journal": Param("", type="string")}

with DAG("callback_success", schedule=None, params=journal, on_success_callback=[note("first"), broken, curious, note("last")]):

    @task
    def produce():
        return "fruit"

    produce() >> EmptyOperator(task_id="leaf")

with DAG("callback_failure", schedule=None, params=journal, on_failure_callback=note("dag failed"), on_success_callback=broken):

    @task
    def fail():
        raise ValueError("on purpose")

    fail()

with DAG("callback_timeout", schedule=None, params=journal, dagrun_timeout=timedelta(seconds=1), on_failure_callback=note("timed out")):

    @task
    def sleep():
        time.sleep(600)

    sleep()

with DAG("callback_hangs", schedule=None, params=journal, on_success_callback=[hanging, note("after")]):
    EmptyOperator(task_id="leaf")

with DAG("callback_lost", schedule=None, params=journal, on_failure_callback=note("dag failed")):

    @task(
        retries=1,
        retry_delay=0.2,
        on_failure_callback=note("task failed"),
        on_retry_callback=note("task retries"),
        on_success_callback=broken,
    )
    def victim(number):
        write(get_current_context(), f"victim[{number}] try {get_current_context()['ti'].try_number} began")
        time.sleep(600)

    victim.expand(number=[0, 1])

every = {
    f"on_{name}_callback": note(f"task {name}") for name in ("execute", "success", "failure", "retry", "skipped")
}

with DAG("callback_in_worker", schedule=None, params=journal):

    @task(**every)
    def succeeds():
        pass

    @task(**every)
    def skips():
        raise AirflowSkipException

    @task(retries=1, retry_delay=0.1, **every)
    def fails():
        raise ValueError("on purpose")

    succeeds()
    skips()
    fails()

with DAG("callback_stuck", schedule=None, params=journal):

    @task(retries=3, on_failure_callback=note("stuck"))
    def never_starts():
        write(get_current_context(), "stuck task ran")

    never_starts()

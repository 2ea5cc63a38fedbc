"""Tasks that write down each of their tries, for the tests that kill processes around them."""

import os
import time
from pathlib import Path

from airflow.sdk import DAG, Param, get_current_context, task


def note(what):
    context = get_current_context()
    ti = context["ti"]
    with Path(context["params"]["journal"]).open("a") as journal:
        journal.write(f"{ti.task_id}[{ti.map_index}] try {ti.try_number} {what}\n")


@task
def work(number):
    note("began")
    time.sleep(0.5)
    note("ended")
    return number


@task
def finish(numbers):
    note("began")
    note("ended")
    return sum(numbers)


with DAG("crash_around", schedule=None, catchup=False, params={"journal": Param("", type="string")}):
    finish(work.expand(number=list(range(12))))


@task(retries=1, retry_delay=0.2)
def die():
    note("began")
    if get_current_context()["ti"].try_number == 1:
        os.kill(os.getpid(), 9)
    note("ended")


@task(trigger_rule="all_done")
def leave():
    note("began")
    os._exit(3)


with DAG("crash_inside", schedule=None, catchup=False, params={"journal": Param("", type="string")}):
    die() >> leave()


@task
def long():
    note("began")
    time.sleep(6)
    note("ended")


with DAG("crash_long", schedule=None, catchup=False, params={"journal": Param("", type="string")}):
    long()

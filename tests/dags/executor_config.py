"""Tasks that ask for something of their containers, in Modal's words."""

import os
import time

from airflow.sdk import DAG, task


@task(executor_config={"env": {"LEVEL": "debug"}, "cpu": (0.5, 2), "memory": 256})
def level():
    return os.environ["LEVEL"]


@task
def plain():
    return os.environ.get("LEVEL", "none")


with DAG("asks", schedule=None, catchup=False):
    level() >> plain()


@task(executor_config={"timeout": 2})
def overtime():
    time.sleep(60)


@task(executor_config={"secrets": ["nobody-made-this"]})
def secretive():
    return "never"


@task(trigger_rule="all_done")
def after():
    return "still here"


with DAG("asks_too_much", schedule=None, catchup=False):
    [overtime(), secretive()] >> after()

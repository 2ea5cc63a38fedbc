"""Tasks that end in all the ways in which a task can end; each is run alone by the supervisor's tests."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import subprocess
import sys
import time

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, BaseOperator, Connection, Variable, task
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, AirflowSkipException

with DAG("trial", schedule=None):

    @task
    def push():
        print("hello from push")
        return {"n": 1, "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), "pair": (1, 2)}

    @task
    def pull(value):
        print("pulled", value["n"], value["when"].year, value["pair"])

    pull(push())

    @task
    def by_name(ti=None):
        print("by name", ti.xcom_pull(task_ids="push")["n"])

    by_name()

    @task
    def fail():
        raise ValueError("as told")

    fail()

    @task
    def fail_for_good():
        raise AirflowFailException("no retry helps")

    fail_for_good()

    @task
    def skip():
        raise AirflowSkipException("not today")

    skip()

    @task
    def kill_myself():
        os.kill(os.getpid(), signal.SIGKILL)

    kill_myself()

    @task
    def leave(code):
        os._exit(code)

    leave(3)

    @task(task_id="leave_silently")
    def leave_silently():
        os._exit(0)

    leave_silently()

    @task
    def environment():
        print("environment:", *(os.environ.get(name) for name in ("TRIAL_SECRET", "CARGO_MANIFEST_DIR", "MODALFLOW_KEYS")))

    environment()

    @task(on_failure_callback=lambda context: print("failure is called back"))
    def sleep():
        print("sleeping")
        deadline = time.monotonic() + float(os.environ.get("TRIAL_SLEEP", "300"))
        while time.monotonic() < deadline:
            time.sleep(0.05)
        print("slept")

    sleep()

    class Guarded(BaseOperator):
        def execute(self, context):
            print("guarding")
            self.is_killed = False
            while not self.is_killed:
                time.sleep(0.05)
            raise RuntimeError("what it waited for was killed")

        def on_kill(self):
            print("on_kill")
            self.is_killed = True

    Guarded(task_id="guarded", on_failure_callback=lambda context: print("failure is called back"))

    @task
    def talk():
        for number in range(40_000):
            print(f"line {number:06} {'x' * 60}")
        sys.stdout.write("y" * 300_000)

    talk()

    @task
    def secrets():
        log = logging.getLogger("my.logger")
        print("password is", Connection.get("db").password)
        print("variable is", Variable.get("api_token"))
        print("public is", Variable.get("greeting"))
        log.warning("a token: %s", Variable.get("api_token"))
        sys.stderr.write("to stderr\n")
        os.write(1, b"raw \xff bytes\n")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("caught")

    secrets()

    @task
    def numbers():
        return [1, 2, 3]

    @task
    def square(x):
        return x * x

    @task
    def total(xs):
        print("total", sum(xs))

    total(square.expand(x=numbers()))

    @task
    def push_much(megabytes):
        return "z" * (megabytes * 1024 * 1024)

    push_much.override(task_id="push_20_mb")(20)
    push_much.override(task_id="push_60_mb")(60)

    @task
    def pull_much(ti=None):
        print("pulled", len(ti.xcom_pull(task_ids="push_20_mb")))

    pull_much()

    @task
    def variables():
        Variable.set("made/here", "value", description="by a task")
        print("keys", Variable.keys())
        Variable.delete("made/here")
        try:
            Variable.get("no such variable")
        except AirflowRuntimeError as error:
            print("not there:", error)

    variables()

    BashOperator(task_id="bash", bash_command="echo from bash {{ ti.try_number }}; echo to error >&2; exit 0")

    @task
    def leave_child():
        # It has the task's sockets open, stdin among them.
        print("child", subprocess.Popen(["sleep", "60"]).pid)

    leave_child()
    TriggerDagRunOperator(task_id="trigger", trigger_dag_id="other", trigger_run_id="made by trigger", conf={"a": 1})
    DateTimeSensorAsync(task_id="defer", target_time=datetime.datetime(2099, 1, 1, tzinfo=datetime.timezone.utc))

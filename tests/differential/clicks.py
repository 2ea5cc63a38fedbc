"""Histories of clicks: what people do to runs in the UI, through the REST API that the UI itself uses. Each case is a DAG of
its own; a task that must be caught while it runs waits for a file.
"""

from __future__ import annotations

from collections.abc import Callable

from play import Case

NOT_YET: dict[str, str] = {}

HEAD = '''"""DAGs of the differential tests that are clicked at."""

import datetime as dt
import time
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, Param, TaskGroup, Variable

HOUR = dt.timedelta(hours=1)


def gate(context):
    ti = context["ti"]
    return Path(Variable.get("gates")) / f"{ti.dag_id}.{ti.run_id}.{ti.task_id}"


class Work(BaseOperator):
    def __init__(self, item=1, **kwargs):
        super().__init__(**kwargs)
        self.item = item

    def execute(self, context):
        if self.item < 0:
            raise RuntimeError("as told")
        return self.item


class Gate(Work):
    """Runs until its gate is open."""

    def execute(self, context):
        at = gate(context)
        while not at.exists():
            time.sleep(0.05)
        return super().execute(context)


class Fixable(BaseOperator):
    """Fails until its gate is open."""

    def execute(self, context):
        if not gate(context).exists():
            raise RuntimeError("not fixed yet")
        return "fixed"


class Long(BaseOperator):
    """Waits in the triggerer."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(HOUR), method_name="resume")

    def resume(self, context, event=None):
        return "resumed"


def is_open(**context):
    return gate(context).exists()

'''

MADE: list[Case] = []
R = "one"


def told(arguments: str, body: str) -> Callable:
    """A case named as the function that tells its history."""

    def make(history: Callable[[str], list[list]]) -> Callable:
        name = history.__name__
        lines = "\n".join(f"    {line}" if line else "" for line in body.strip().splitlines())
        source = f"with DAG({name!r}, {arguments or 'schedule=None'}, catchup=True):\n{lines}\n"
        MADE.append(Case(name, [name], history(name), source=source))
        return history

    return make


def trigger(dag: str, run: str = R, **more) -> list:
    return ["trigger", dag, run, more]


def ends(dag: str, run: str = R, state: str = "finished") -> list:
    return ["run", dag, run, state]


def clear(dag: str, *tasks, run: str = R, **more) -> list:
    body = {"dry_run": False, "only_failed": False, "dag_run_id": run} | ({"task_ids": list(tasks)} if tasks else {}) | more
    return ["click", "POST", f"/dags/{dag}/clearTaskInstances", body]


def mark(dag: str, task: str, state: str, run: str = R, **more) -> list:
    return ["click", "PATCH", f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}", {"new_state": state} | more]


def mark_run(dag: str, state: str, run: str = R) -> list:
    return ["click", "PATCH", f"/dags/{dag}/dagRuns/{run}", {"state": state}]


def is_now(dag: str, task: str, state: str, run: str = R) -> list:
    return ["task", dag, run, task, state]


def opened(dag: str, task: str, run: str = R) -> list:
    return ["open", f"{dag}.{run}.{task}"]


def paused(dag: str, is_paused: bool) -> list:
    return ["click", "PATCH", f"/dags/{dag}", {"is_paused": is_paused}]


def three_runs(dag: str) -> list[list]:
    steps = []
    for run, day in zip(("one", "two", "three"), DAYS, strict=True):
        steps += [opened(dag, "b", run), trigger(dag, run, logical_date=day), ends(dag, run)]
    return steps


def ends_all(dag: str) -> list[list]:
    return [ends(dag, run) for run in ("one", "two", "three")]


CHAIN = """
a = Work(task_id="a")
b = Fixable(task_id="b")
c = Work(task_id="c")
d = EmptyOperator(task_id="d", trigger_rule="all_done")
a >> b >> c
b >> d
"""
WAITING = """
g = Gate(task_id="g")
after = Work(task_id="after")
last = EmptyOperator(task_id="last")
g >> after >> last
"""
DAYS = ["2026-01-05T00:00:00+00:00", "2026-01-06T00:00:00+00:00", "2026-01-07T00:00:00+00:00"]


@told("", CHAIN)
def clear_what_failed(dag):
    return [trigger(dag), ends(dag), ["look", "failed"], opened(dag, "b"), clear(dag, only_failed=True), ends(dag)]


@told("", CHAIN)
def clear_downstream(dag):
    return [trigger(dag), opened(dag, "b"), ends(dag), clear(dag, "b", include_downstream=True), ends(dag)]


@told("", CHAIN)
def clear_upstream(dag):
    return [trigger(dag), opened(dag, "b"), ends(dag), clear(dag, "b", include_upstream=True), ends(dag)]


@told("", CHAIN)
def clear_without_the_run(dag):
    return [trigger(dag), opened(dag, "b"), ends(dag), clear(dag, "c", reset_dag_runs=False), ["still", 2]]


@told("", CHAIN)
def clear_future(dag):
    return three_runs(dag) + [clear(dag, "a", run="two", include_future=True), *ends_all(dag)]


@told("", CHAIN)
def clear_past(dag):
    return three_runs(dag) + [clear(dag, "c", run="two", include_past=True), *ends_all(dag)]


@told("", CHAIN)
def clear_between_dates(dag):
    click = clear(dag, "a", "c")
    del click[3]["dag_run_id"]
    click[3] |= {"start_date": DAYS[0], "end_date": DAYS[1]}
    return three_runs(dag) + [click, *ends_all(dag)]


@told("", WAITING)
def clear_a_running_task(dag):
    return [trigger(dag), is_now(dag, "g", "running"), clear(dag, "g"), ["tries", dag, R, "g", 2], opened(dag, "g"), ends(dag)]


@told("", CHAIN)
def clear_the_run(dag):
    click = ["click", "POST", f"/dags/{dag}/dagRuns/{R}/clear", {"dry_run": False}]
    return [trigger(dag), ends(dag), opened(dag, "b"), click, ends(dag)]


@told("", CHAIN)
def clear_the_runs_failures(dag):
    click = ["click", "POST", f"/dags/{dag}/dagRuns/{R}/clear", {"dry_run": False, "only_failed": True}]
    return [trigger(dag), ends(dag), opened(dag, "b"), click, ends(dag)]


@told("", 'Work.partial(task_id="m").expand(item=[1, -1, 2]) >> EmptyOperator(task_id="end", trigger_rule="all_done")')
def clear_one_mapped(dag):
    return [trigger(dag), ends(dag), clear(dag, ["m", 1]), ends(dag), clear(dag, "m"), ends(dag)]


@told(
    "",
    """
s = Work(task_id="s").as_setup()
w = Work(task_id="w")
t = Work(task_id="t").as_teardown(setups=s)
s >> w >> t
other = EmptyOperator(task_id="other")
""",
)
def clear_work_in_a_scope(dag):
    return [trigger(dag), ends(dag), clear(dag, "w"), ends(dag)]


@told("", 'a = Work(task_id="a", item=-1, retries=1, retry_delay=HOUR)\na >> EmptyOperator(task_id="b")')
def clear_a_task_that_waits_for_its_retry(dag):
    return [
        trigger(dag),
        is_now(dag, "a", "up_for_retry"),
        ["look", "waiting"],
        clear(dag, "a"),
        ["still", 1],
        is_now(dag, "a", "up_for_retry"),
        mark(dag, "a", "failed"),
        ends(dag),
    ]


@told("", WAITING)
def mark_a_running_task_successful(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark(dag, "g", "success"), ends(dag), ["still", 3]]


@told("", WAITING)
def mark_a_running_task_failed(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark(dag, "g", "failed"), ends(dag), ["still", 3]]


@told("", WAITING)
def mark_a_running_task_skipped(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark(dag, "g", "skipped"), ends(dag), ["still", 3]]


@told("", CHAIN)
def mark_a_failed_task_successful(dag):
    return [trigger(dag), ends(dag), mark(dag, "b", "success"), ["still", 1], ends(dag)]


@told("", CHAIN)
def mark_a_task_failed_with_downstream(dag):
    return [trigger(dag), opened(dag, "b"), ends(dag), mark(dag, "b", "failed", include_downstream=True), ["still", 1], ends(dag)]


@told("", CHAIN)
def mark_failed_in_future(dag):
    return three_runs(dag) + [mark(dag, "a", "failed", run="two", include_future=True), ["still", 1], *ends_all(dag)]


@told("", WAITING)
def mark_a_waiting_task_successful(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark(dag, "after", "success"), opened(dag, "g"), ends(dag)]


@told("", WAITING)
def mark_a_waiting_task_failed(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark(dag, "after", "failed"), ["still", 1], opened(dag, "g"), ends(dag)]


@told("", WAITING)
def mark_a_running_run_successful(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark_run(dag, "success"), ["still", 3]]


@told("", WAITING)
def mark_a_running_run_failed(dag):
    return [trigger(dag), is_now(dag, "g", "running"), mark_run(dag, "failed"), ["still", 3]]


@told("", CHAIN)
def mark_a_failed_run_successful(dag):
    return [trigger(dag), ends(dag), mark_run(dag, "success"), ["still", 1]]


@told("", CHAIN)
def queue_a_run_again(dag):
    return [trigger(dag), ends(dag), opened(dag, "b"), mark_run(dag, "queued"), ends(dag)]


@told("", WAITING)
def delete_a_run_and_trigger_it_again(dag):
    delete = ["click", "DELETE", f"/dags/{dag}/dagRuns/{R}"]
    return [
        trigger(dag),
        is_now(dag, "g", "running"),
        delete,
        opened(dag, "g"),
        ends(dag),
        trigger(dag),
        delete,
        ["look", "gone"],
        trigger(dag, conf={"again": 1}),
        ends(dag),
    ]


@told("", CHAIN)
def delete_a_task_instance(dag):
    delete = ["click", "DELETE", f"/dags/{dag}/dagRuns/{R}/taskInstances/c"]
    return [trigger(dag), opened(dag, "b"), ends(dag), delete, ["look", "less"], clear(dag, "b"), ends(dag)]


@told("", WAITING)
def pause_in_mid_run(dag):
    return [
        trigger(dag),
        is_now(dag, "g", "running"),
        paused(dag, True),
        opened(dag, "g"),
        is_now(dag, "g", "success"),
        ["still", 3],
        ["look", "paused"],
        paused(dag, False),
        ends(dag),
    ]


@told("", 'a = EmptyOperator(task_id="a")\na >> Work(task_id="b")')
def trigger_while_paused(dag):
    return [paused(dag, True), trigger(dag), ["still", 3], ["look", "paused"], paused(dag, False), ends(dag)]


@told("", 'Work.partial(task_id="m", pool="opened_later", pool_slots=2).expand(item=[1, 2, 3])')
def open_a_pool(dag):
    return [
        ["click", "POST", "/pools", {"name": "opened_later", "slots": 1}],
        trigger(dag),
        is_now(dag, "m", "scheduled"),
        ["still", 2],
        ["look", "closed"],
        ["click", "PATCH", "/pools/opened_later?update_mask=slots", {"pool": "opened_later", "slots": 4, "include_deferred": False}],
        ends(dag),
    ]


@told("", 'Work(task_id="a", pool="made_later")')
def make_a_missing_pool(dag):
    return [
        trigger(dag),
        is_now(dag, "a", "scheduled"),
        ["still", 2],
        ["click", "POST", "/pools", {"name": "made_later", "slots": 1}],
        ends(dag),
    ]


@told("schedule=None, max_active_runs=1", WAITING)
def the_next_run_starts_when_the_first_is_marked(dag):
    return [
        trigger(dag, logical_date=DAYS[0]),
        is_now(dag, "g", "running"),
        trigger(dag, "two", logical_date=DAYS[1]),
        ["still", 1],
        ["look", "queued"],
        mark_run(dag, "failed"),
        opened(dag, "g", "two"),
        ends(dag, "two"),
    ]


@told('schedule=None, params={"n": Param(1, type="integer", minimum=1)}', 'Work(task_id="a")')
def conf_that_does_not_fit(dag):
    return [trigger(dag, conf={"n": 0}), trigger(dag, conf={"n": 2}), trigger(dag, conf={"n": 3}), ends(dag)]


@told("", 'w = Long(task_id="w")\nw >> Work(task_id="after")')
def mark_a_deferred_task(dag):
    return [trigger(dag), is_now(dag, "w", "deferred"), ["look", "deferred"], mark(dag, "w", "success"), ends(dag)]


@told("", 'w = Long(task_id="w")\nw >> Work(task_id="after")')
def mark_a_run_with_a_deferred_task(dag):
    return [trigger(dag), is_now(dag, "w", "deferred"), mark_run(dag, "failed"), ["still", 2]]


@told("", 'w = Long(task_id="w")\nw >> Work(task_id="after")')
def clear_a_deferred_task(dag):
    return [
        trigger(dag),
        is_now(dag, "w", "deferred"),
        clear(dag, "w"),
        ["still", 1],
        is_now(dag, "w", "deferred"),
        mark(dag, "w", "failed"),
        ends(dag),
    ]


@told("", 'PythonSensor(task_id="s", python_callable=is_open, mode="reschedule", poke_interval=600) >> Work(task_id="after")')
def mark_a_sensor_between_pokes(dag):
    return [trigger(dag), is_now(dag, "s", "up_for_reschedule"), mark(dag, "s", "success"), ends(dag)]


@told("", 'PythonSensor(task_id="s", python_callable=is_open, mode="reschedule", poke_interval=600) >> Work(task_id="after")')
def clear_a_sensor_between_pokes(dag):
    return [trigger(dag), is_now(dag, "s", "up_for_reschedule"), opened(dag, "s"), clear(dag, "s"), ends(dag)]


@told(
    "schedule=None, fail_fast=True",
    """
g = Gate(task_id="g")
f = Gate(task_id="f", item=-1)
g >> EmptyOperator(task_id="after")
g >> Work(task_id="t").as_teardown()
""",
)
def one_failure_ends_the_run(dag):
    return [trigger(dag), is_now(dag, "g", "running"), is_now(dag, "f", "running"), opened(dag, "f"), ends(dag), ["still", 2]]


@told("schedule=None, dagrun_timeout=dt.timedelta(seconds=4)", WAITING)
def a_run_times_out(dag):
    return [trigger(dag), is_now(dag, "g", "running"), ends(dag), ["still", 3]]


@told("schedule=None, max_consecutive_failed_dag_runs=2", 'Work(task_id="a", item=-1)')
def failures_pause_the_dag(dag):
    return [trigger(dag, "one"), ends(dag, "one"), trigger(dag, "two"), ends(dag, "two"), trigger(dag, "three"), ["still", 2]]


@told(
    "schedule='@daily', start_date=dt.datetime(2026, 1, 1), end_date=dt.datetime(2026, 1, 2), max_active_runs=2",
    'a = Fixable(task_id="a", depends_on_past=True)\na >> Work(task_id="b")',
)
def the_past_is_marked(dag):
    first, second = (f"scheduled__2026-01-0{day}T00:00:00+00:00" for day in (1, 2))
    return [
        opened(dag, "a", second),
        ends(dag, first, "failed"),
        ["still", 2],
        ["look", "held"],
        mark(dag, "a", "success", run=first),
        ends(dag, second),
        ends(dag, first),
    ]


@told(
    "",
    """
with TaskGroup("group"):
    x = Gate(task_id="x")
    y = Work(task_id="y")
    x >> y
after = EmptyOperator(task_id="after")
y >> after
""",
)
def mark_a_group(dag):
    click = ["click", "PATCH", f"/dags/{dag}/dagRuns/{R}/taskGroupInstances/group", {"new_state": "success"}]
    return [trigger(dag), is_now(dag, "group.x", "running"), click, ends(dag), ["still", 2]]


@told("", CHAIN)
def notes(dag):
    return [
        trigger(dag, note="asked for"),
        ends(dag),
        ["click", "PATCH", f"/dags/{dag}/dagRuns/{R}", {"note": "seen"}],
        mark(dag, "c", "success", note="done by hand"),
        ["still", 1],
    ]


@told(
    "",
    """
a = TriggerDagRunOperator(task_id="a", trigger_dag_id="triggers_itself", trigger_run_id="more", conf={"depth": "{{ dag_run.conf.get('depth', 0) + 1 }}"}, skip_when_already_exists=True)
b = Work(task_id="b")
a >> b
""",
)
def triggers_itself(dag):
    return [trigger(dag), ends(dag), ends(dag, "more"), clear(dag, "a"), ends(dag)]


def is_race(case: Case, golden: dict) -> bool:
    """None of them may be."""
    return False


def cases() -> list[Case]:
    return list(MADE)


def files(cases: list[Case]) -> dict[str, str]:
    return {"clicks.py": HEAD + "\n\n".join(case.source for case in cases)}

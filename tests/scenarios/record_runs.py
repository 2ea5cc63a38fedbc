#!/usr/bin/env python3
"""Records what Airflow's own scheduler decides about runs of random DAGs, as test data for ours.

    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg2://… python record_runs.py SEED COUNT OUTPUT.jsonl

Needs apache-airflow 3.3.2 and a database that `airflow db migrate` has prepared. No worker runs: random fates stand
for it. A line is a DAG, as Airflow serialized it, and the steps of one run: the task instances that ended, and the
states of all of them once Airflow's scheduler found nothing more to do.
"""
import datetime as dt
import json
import logging
import os
import random
import sys
import tempfile

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp())
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
logging.disable(logging.CRITICAL)
import structlog

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
from airflow import settings

settings.initialize()
from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance as TI
from airflow.models.taskmap import TaskMap
from airflow.models.xcom import XComModel
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator, task_group
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.task.trigger_rule import TriggerRule
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

RULES = [str(rule.value) for rule in TriggerRule]
R = random.Random(int(sys.argv[1]))
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


class Work(BaseOperator):
    """Does nothing; its fate is drawn."""

    def __init__(self, x=None, y=None, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = x, y


class Branch(Work):
    inherits_from_skipmixin = True


def make_dag(dag_id):
    with DAG(dag_id, schedule=None, start_date=dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)) as dag:
        tasks = []
        count = R.randint(2, 9)
        grouped = R.random() < 0.3

        def add(index, inside=None):
            task_id = f"t{index}"
            rule = R.choice(RULES) if R.random() < 0.6 else "all_success"
            ups = [up for up in tasks if R.random() < 0.35]
            kind = R.random()
            mapped = None
            producers = [up for up in ups if hasattr(up, "output")]
            if inside is None and kind < 0.25 and rule != "always":
                mapped = {}
                if producers and R.random() < 0.7:
                    mapped["x"] = R.choice(producers).output
                else:
                    mapped["x"] = list(range(R.randint(0, 3)))
                if R.random() < 0.2:
                    mapped["y"] = list(range(R.randint(1, 2)))
            if mapped is not None:
                task = Work.partial(task_id=task_id, trigger_rule=rule).expand(**mapped)
            elif kind < 0.45 and inside is None:
                task = EmptyOperator(task_id=task_id, trigger_rule=rule)
            else:
                task = Work(task_id=task_id, trigger_rule=rule, **({"x": inside} if inside is not None else {}))
            if ups:
                ups >> task
            if mapped is None and inside is None and R.random() < 0.15:
                task.as_setup()
            elif mapped is None and inside is None and ups and R.random() < 0.15:
                task.as_teardown(on_failure_fail_dagrun=R.random() < 0.3)
            return task

        for index in range(count):
            if grouped and index == count // 2:
                producers = [up for up in tasks if hasattr(up, "output")]
                over = R.choice(producers).output if producers and R.random() < 0.6 else list(range(R.randint(0, 3)))

                @task_group(group_id="each")
                def each(x):
                    first = Work(task_id="g0", x=x, trigger_rule=R.choice([rule for rule in RULES if rule != "always"]) if R.random() < 0.3 else "all_success")
                    inner = [first]
                    for n in range(1, R.randint(2, 4)):
                        rule = R.choice([rule for rule in RULES if rule != "always"])
                        more = Work(task_id=f"g{n}", trigger_rule=rule)
                        [up for up in inner if R.random() < 0.7] >> more or None
                        inner.append(more)
                    return inner[-1]

                each.expand(x=over)
                group = dag.task_group.children["each"]
                outer = [up for up in tasks if R.random() < 0.3]
                if outer:
                    outer >> group
                tasks.append(dag.task_dict["each.g0"])
                tasks.extend(t for t in dag.tasks if t.task_id in ("each.g1", "each.g2"))
            tasks.append(add(index))
    return dag


def settle(session, run):
    """Airflow's scheduler loop, until it changes nothing."""
    for _ in range(60):
        before = states(session, run)
        # As in a new loop of the scheduler: it looks at rows, not at what it remembers of them.
        session.expire_all()
        ready, _ = run.update_state(session=session, execute_callbacks=False)
        run.schedule_tis(ready, session=session)
        session.commit()
        if states(session, run) == before or run.state in ("success", "failed"):
            return
    raise RuntimeError("does not settle")


def states(session, run):
    rows = session.execute(
        select(TI.task_id, TI.map_index, TI.state).where(TI.dag_id == run.dag_id, TI.run_id == run.run_id)
    )
    found = {f"{task_id}[{index}]" if index >= 0 else task_id: str(state.value if hasattr(state, "value") else state) if state else None for task_id, index, state in rows}
    return dict(sorted(found.items()))


def finish(session, run, name, state, length):
    task_id, _, index = name.partition("[")
    index = int(index[:-1]) if index else -1
    ti = session.scalar(
        select(TI).where(TI.dag_id == run.dag_id, TI.run_id == run.run_id, TI.task_id == task_id, TI.map_index == index)
    )
    ti.state = state
    ti.start_date = ti.end_date = NOW
    session.merge(ti)
    session.flush()
    if state == "success":
        if index < 0:
            session.add(TaskMap(run.dag_id, task_id, run.run_id, -1, length, None))
        XComModel.set("return_value", length, dag_id=run.dag_id, task_id=task_id, run_id=run.run_id, map_index=index, session=session)
    session.commit()


def record(session, number):
    dag = make_dag(f"random_{sys.argv[1]}_{number}")
    lazy = LazyDeserializedDAG(data=DagSerialization.to_dict(dag))
    SerializedDAG.bulk_write_to_db("record", None, [lazy], session=session)
    SerializedDagModel.write_dag(lazy, bundle_name="record", session=session)
    session.commit()
    core = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    run = core.create_dagrun(
        run_id="r",
        logical_date=NOW,
        data_interval=(NOW, NOW),
        run_after=NOW,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        session=session,
    )
    run.dag = core
    session.commit()
    settle(session, run)
    steps = [{"ended": [], "states": states(session, run), "run": str(run.state)}]
    while run.state == "running":
        waiting = [name for name, state in steps[-1]["states"].items() if state == "scheduled"]
        if not waiting:
            break
        ended = []
        for name in waiting:
            if R.random() < 0.6 or (not ended and name == waiting[-1]):
                ended.append([name, R.choice(["success"] * 3 + ["failed", "skipped"]), R.randint(0, 3)])
        for each in ended:
            finish(session, run, *each)
        settle(session, run)
        steps.append({"ended": ended, "states": states(session, run), "run": str(run.state)})
    document = DagSerialization.to_dict(dag)
    for task in document["dag"]["tasks"]:
        for noise in ("template_fields_renderers", "ui_color", "ui_fgcolor", "_task_module", "template_fields", "x", "y"):
            task["__var"].pop(noise, None)
    for noise in ("fileloc", "relative_fileloc", "_processor_dags_folder", "edge_info", "dag_dependencies"):
        document["dag"].pop(noise, None)
    return {"document": document, "steps": steps}


with settings.Session() as session, open(sys.argv[3], "w") as output:
    if not session.get(DagBundleModel, "record"):
        session.add(DagBundleModel(name="record"))
        session.commit()
    failures = 0
    for number in range(int(sys.argv[2])):
        try:
            output.write(json.dumps(record(session, number), separators=(",", ":")) + "\n")
        except Exception as error:
            session.rollback()
            failures += 1
            if failures < 4:
                import traceback
                traceback.print_exc()
    print(f"{failures} DAGs could not be made or did not settle", file=sys.stderr)

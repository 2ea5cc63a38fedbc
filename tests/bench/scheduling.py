"""What scheduling itself costs: DAGs of EmptyOperators, which no worker sees; many DAGs of which few are due; a long
history. For us each is one `modalflow-host tick`, a process from its start to its exit.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import explain
from database import Database
from systems import Modalflow, System

FILES = {
    "empty_chain.py": '''with DAG("empty_chain", schedule=None):
    before = EmptyOperator(task_id="t0000")
    for number in range(1, 1000):
        after = EmptyOperator(task_id=f"t{number:04d}")
        before >> after
        before = after
''',
    "empty_wide.py": '''with DAG("empty_wide", schedule=None):
    start, end = EmptyOperator(task_id="start"), EmptyOperator(task_id="end")
    start >> [EmptyOperator(task_id=f"w{number:04d}") for number in range(4998)] >> end
''',
    # No slot is ever free: they are expanded and scheduled, and wait.
    "many_mapped.py": '''with DAG("many_mapped", schedule=None):
    start = EmptyOperator(task_id="start")
    mapped = BashOperator.partial(task_id="mapped", bash_command="true", pool="closed").expand(
        env=[{"NUMBER": str(number)} for number in range(10_000)]
    )
    start >> mapped
''',
}
HEAD = '''"""Written by tests/bench."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

'''
DUE = '''with DAG("due_{number:04d}", schedule=None):
    EmptyOperator(task_id="first") >> [EmptyOperator(task_id=f"m{{n}}") for n in range(8)] >> EmptyOperator(task_id="last")
'''
TASKS = {"empty_chain": 1000, "empty_wide": 5000}


def scheduling(bench, name: str) -> None:
    folder = bench.folder / f"scheduling-{name}"
    write(folder, {path: HEAD + text for path, text in FILES.items()})
    with bench.system(name, "scheduling") as system:
        system.database.query("INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('closed', 0, false)")
        system.take(folder, len(FILES))
        if not isinstance(system, Modalflow):
            system.start()
            time.sleep(5)
        for number in range(bench.arguments.runs):
            for dag_id, tasks in TASKS.items():
                empty_run(bench, system, dag_id, f"{dag_id}-{number}", tasks)
            if isinstance(system, Modalflow):
                mapped_run(bench, system, f"run-{number}")
    if name == "modalflow":
        crowd(bench, name)


def empty_run(bench, system: System, dag_id: str, run_id: str, tasks: int) -> None:
    """From "go" to the run's end."""
    system.database.pause((dag_id,), True)
    system.trigger(dag_id, run_id)
    time.sleep(2.5)
    if isinstance(system, Modalflow):
        system.database.pause((dag_id,), False)
        cost = system.run("tick")[1]
        seconds = {"seconds": cost.wall, "cpu": cost.cpu}
    else:
        go = system.go((dag_id,))
        system.database.wait_for_runs(run_id, 1, bench.arguments.patience)
        end = "SELECT extract(epoch FROM end_date)::float8 FROM dag_run WHERE dag_id = %s AND run_id = %s"
        seconds = {"seconds": system.database.query(end, dag_id, run_id)[0][0] - go}
    states = system.database.query(
        "SELECT state, count(*) FROM task_instance WHERE dag_id = %s AND run_id = %s GROUP BY 1", dag_id, run_id
    )
    assert states == [("success", tasks)], states
    bench.add(system, dag_id, **seconds, **{"tasks per second": tasks / seconds["seconds"]})


def mapped_run(bench, system: Modalflow, run_id: str) -> None:
    system.run("dags", "pause", "--dag-id", "many_mapped", check=False)
    made = system.run("dags", "trigger", "--dag-id", "many_mapped", "--run-id", run_id)[1]
    system.database.pause(("many_mapped",), False)
    cost = system.run("tick")[1]
    system.database.pause(("many_mapped",), True)
    count = "SELECT count(*) FROM task_instance WHERE dag_id = 'many_mapped' AND run_id = %s AND state = 'scheduled'"
    assert system.database.query(count, run_id) == [(10_000,)]
    bench.add(system, "10,000 mapped", seconds=made.wall + cost.wall, cpu=made.cpu + cost.cpu, tick=cost.wall)


def crowd(bench, name: str) -> None:
    """Ten DAGs that are due: alone, among a thousand others, and after a long history."""
    folder = bench.folder / "scheduling-due"
    write(folder, {f"due_{number}.py": HEAD + DUE.format(number=number) for number in range(10)})
    with bench.system(name, "crowd") as system:
        system.take(folder, 10)
        ten_due(bench, system, "10 due of 10 DAGs", "alone")
        crowd_of_dags(system.database, 990)
        ten_due(bench, system, "10 due of 1,000 DAGs", "crowd")
        if bench.arguments.history:
            made = history(system.database, bench.arguments.history)
            what = f"10 due after {made:,} task instances"
            ten_due(bench, system, what, "history")
            if bench.arguments.explain:
                found: list[tuple[float, str, str]] = []
                ten_due(bench, system, f"{what}, explained", "explained", explain.plans(system.database, found))
                bench.arguments.explain.write_text(explain.page(f"A tick that carries 10 due runs of 10 tasks to their end, in a database of 1,000 DAGs and {made:,} finished task instances", found))


def ten_due(bench, system: Modalflow, what: str, label: str, watching: AbstractContextManager | None = None) -> None:
    """Ticks as often as `--runs` says, after one that fills the caches; one tick alone if somebody is `watching` it."""
    ids = tuple(f"due_{number:04d}" for number in range(10))
    for number in range(1 if watching else bench.arguments.runs + 1):
        system.database.pause(ids, True)
        for dag_id in ids:
            system.trigger(dag_id, f"{label}-{number}")
        system.database.pause(ids, False)
        before = scanned(system.database)
        with watching or nullcontext():
            cost = system.run("tick")[1]
            time.sleep(1.5)  # Postgres counts what a session did when that session is over.
        rows = scanned(system.database) - before
        done = system.database.query(
            "SELECT count(*) FROM dag_run WHERE run_id = %s AND state = 'success'", f"{label}-{number}"
        )
        assert done == [(10,)], done
        if number or watching:  # the first fills the caches
            bench.add(system, what, seconds=cost.wall, cpu=cost.cpu, **{"rows of runs and tasks read in sequence": rows})


def scanned(database: Database) -> int:
    return database.query(
        "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname IN ('dag_run', 'task_instance')"
    )[0][0]


def crowd_of_dags(database: Database, count: int) -> None:
    """Copies of one DAG, with version and serialized form, of which none is due."""
    for table, change in {
        "dag": "dag_id = %(id)s",
        "dag_version": "dag_id = %(id)s, id = md5(%(id)s)::uuid",
        "serialized_dag": "dag_id = %(id)s, id = md5('s' || %(id)s)::uuid, dag_version_id = md5(%(id)s)::uuid",
    }.items():
        change = change.replace("%(id)s", "'crowd_' || n")
        database.query(f"CREATE TEMP TABLE copied AS SELECT t.*, n FROM {table} t, generate_series(1, {count}) n WHERE t.dag_id = 'due_0000'")
        database.query(f"UPDATE copied SET {change}")
        columns = ", ".join(
            row[0]
            for row in database.query(
                "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
                table,
            )
        )
        database.query(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM copied")
        database.query("DROP TABLE copied")


def history(database: Database, count: int) -> int:
    """Finished runs of the ten DAGs, with their ten task instances each."""
    runs = count // 100
    database.query("SET synchronous_commit = off")
    columns = {
        table: [
            row[0]
            for row in database.query(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                table,
            )
        ]
        for table in ("dag_run", "task_instance")
    }

    def copy(table: str, **changes: str) -> None:
        chosen = ", ".join(changes.get(column, f"t.{column}") for column in columns[table])
        names = ", ".join(f'"{column}"' for column in columns[table])
        database.query(
            f"INSERT INTO {table} ({names}) SELECT {chosen} FROM {table} t, generate_series(1, {runs}) n "
            "WHERE t.run_id = 'alone-0' AND t.dag_id LIKE 'due_%%'"
        )

    old = "interval '400 days' + n * interval '1 minute'"
    copy("dag_run", id="nextval('dag_run_id_seq')", run_id="'old-' || n", logical_date="NULL", run_after=f"t.run_after - {old}")
    copy("task_instance", id="gen_random_uuid()", run_id="'old-' || n")
    database.query("ANALYZE")
    return database.query("SELECT count(*) FROM task_instance")[0][0]


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)

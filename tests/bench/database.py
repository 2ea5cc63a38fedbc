"""The tables both systems write, read with the same SQL: task_instance, dag_run, serialized_dag."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import psycopg2

from workloads import Workload


class Database:
    """One database of the benchmark's Postgres, made from Airflow's empty schema."""

    def __init__(self, server_url: str, name: str):
        self.url = f"{server_url.rsplit('/', 1)[0]}/{name}"
        server = psycopg2.connect(server_url)
        server.autocommit = True
        with server.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE airflow_template")
        server.close()
        self._connection = psycopg2.connect(self.url)
        self._connection.autocommit = True

    def query(self, sql: str, *values) -> list[tuple]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def backend(self) -> int:
        """The process id of this connection's backend: its parent is Postgres itself."""
        return self.query("SELECT pg_backend_pid()")[0][0]

    def now(self) -> float:
        return self.query("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]

    def transactions(self) -> int:
        return self.query("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")[0][0]

    def stored_dags(self) -> int:
        return self.query("SELECT count(DISTINCT dag_id) FROM serialized_dag")[0][0]

    def pause(self, dag_ids: tuple[str, ...], paused: bool) -> None:
        self.query("UPDATE dag SET is_paused = %s WHERE dag_id = ANY(%s)", paused, list(dag_ids))

    def wait_for_runs(self, run_id: str, count: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done = self.query("SELECT count(*) FROM dag_run WHERE run_id = %s AND state IN ('success', 'failed')", run_id)
            if done[0][0] == count:
                return
            time.sleep(0.1)
        states = self.query("SELECT state, count(*) FROM task_instance WHERE run_id = %s GROUP BY 1", run_id)
        raise TimeoutError(f"{run_id}: {states} after {seconds} s")


def figures(database: Database, workload: Workload, run_id: str, go: float, trace: Path) -> dict[str, float]:
    """Every figure of one run, in seconds, from the rows and from inside the tasks. Fails unless all tasks succeeded."""
    rows = database.query(
        """
        SELECT task_id, state, try_number, extract(epoch FROM start_date)::float8, extract(epoch FROM end_date)::float8
        FROM task_instance WHERE run_id = %s ORDER BY task_id, map_index
        """,
        run_id,
    )
    ends = database.query("SELECT state, extract(epoch FROM end_date)::float8 FROM dag_run WHERE run_id = %s", run_id)
    if len(rows) != workload.tasks or any(row[1] != "success" or row[2] > 1 for row in rows):
        raise AssertionError(f"{run_id}: not all of {workload.tasks} tasks succeeded at their first try")
    if any(state != "success" for state, _ in ends):
        raise AssertionError(f"{run_id}: not all runs succeeded")
    last = max(end for _, end in ends)
    found = {
        "seconds": last - go,
        "tasks per second": workload.tasks / (last - go),
        "last task to run's end": last - max(row[4] for row in rows if row[4]),
    }
    if workload.is_chain:
        found |= spread("hand-over, rows", [after[3] - before[4] for before, after in pairwise(rows)])
        inside = sorted(line.split()[2:] for line in trace.read_text().splitlines() if line.split()[1] == run_id)
        if len(inside) != workload.tasks:
            raise AssertionError(f"{run_id}: {len(inside)} tasks wrote their times, {workload.tasks} ran")
        hops = [float(after[1]) - float(before[2]) for before, after in pairwise(inside)]
        found |= spread("hand-over, inside", hops)
    return found


def spread(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}, p50": percentile(values, 0.5), f"{name}, p95": percentile(values, 0.95)}


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    position = (len(values) - 1) * share
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (position - low)

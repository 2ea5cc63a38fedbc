"""The DAG files of the benchmark, written anew for each system under test, and what each workload is made of.

Each task notes its first and its last statement's time in a file, so that the hand-over is seen from inside too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEAD = '''"""Written by tests/bench."""

from __future__ import annotations

import os
import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, get_current_context, task

TRACE = {trace!r}


def note(first):
    ti = get_current_context()["ti"]
    line = " ".join([ti.dag_id, ti.run_id, ti.task_id, repr(first)])
    file = os.open(TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{{line}} {{time.time()!r}}\\n".encode())
    os.close(file)


@task
def step():
    note(time.time())


'''

CHAIN = '''with DAG("bench_chain_{size}", schedule=None, catchup=False, tags=["bench"]):
    before = step.override(task_id="t000")()
    for number in range(1, {size}):
        after = step.override(task_id=f"t{{number:03d}}")()
        before >> after
        before = after
'''

MAPPED = '''@task
def items():
    note(time.time())
    return list(range({size}))


@task
def handle(item):
    note(time.time())


with DAG("bench_mapped_{size}", schedule=None, catchup=False, tags=["bench"]):
    handle.expand(item=items())
'''

WIDE = '''with DAG("bench_wide_{size}", schedule=None, catchup=False, tags=["bench"]):
    start, end = EmptyOperator(task_id="start"), EmptyOperator(task_id="end")
    start >> [step.override(task_id=f"w{{number:03d}}")() for number in range({size})] >> end
'''

DIAMOND = '''with DAG("bench_diamond_{number:02d}", schedule=None, catchup=False, tags=["bench"]):
    first, last = step.override(task_id="first")(), step.override(task_id="last")()
    first >> [step.override(task_id=f"m{{number}}")() for number in range(8)] >> last
'''

# A file as people write them: two kinds of operators and TaskFlow, retries, ten tasks. Nothing in it is ever due.
USUAL = '''"""Written by tests/bench."""

from __future__ import annotations

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG(
    "usual_{number:03d}",
    schedule="@yearly",  # without a start_date: the next run is due on the next 1 January
    catchup=False,
    default_args={{"retries": 1, "retry_delay": datetime.timedelta(minutes=1)}},
    tags=["bench"],
):

    @task
    def extract(part: int) -> dict:
        return {{"part": part, "rows": {number}}}

    @task
    def load(payload: dict) -> None:
        print(payload)

    start, end = EmptyOperator(task_id="start"), EmptyOperator(task_id="end")
    check = BashOperator(task_id="check", bash_command="echo {{{{ ds }}}}")
    tidy = BashOperator(task_id="tidy", bash_command="echo {{{{ run_id }}}}")
    for part in range(3):
        payload = extract.override(task_id=f"extract_{{part}}")(part)
        start >> payload
        load.override(task_id=f"load_{{part}}")(payload) >> check
    check >> tidy >> end
'''


@dataclass(frozen=True)
class Workload:
    """One run each of some DAGs. `tasks` counts all task instances."""

    name: str
    dag_ids: tuple[str, ...]
    tasks: int
    is_chain: bool = False


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("chain of 20", ("bench_chain_20",), 20, is_chain=True),
        Workload("chain of 200", ("bench_chain_200",), 200, is_chain=True),
        Workload("200 mapped", ("bench_mapped_200",), 201),
        Workload("200 wide", ("bench_wide_200",), 202),
        Workload("50 DAGs of 10", tuple(f"bench_diamond_{number:02d}" for number in range(50)), 500),
    )
}


def write_workloads(folder: Path, trace: Path) -> list[Path]:
    """The files of all workloads. `trace` is the file that the tasks append to."""
    head = HEAD.format(trace=str(trace))
    files = {
        "chain_20.py": head + CHAIN.format(size=20),
        "chain_200.py": head + CHAIN.format(size=200),
        "mapped.py": head + MAPPED.format(size=200),
        "wide.py": head + WIDE.format(size=200),
    }
    files |= {f"diamond_{number:02d}.py": head + DIAMOND.format(number=number) for number in range(50)}
    return _write(folder, files)


def write_usual(folder: Path, count: int) -> list[Path]:
    """Files as people write them, of which nothing is due."""
    return _write(folder, {f"usual_{number:03d}.py": USUAL.format(number=number) for number in range(count)})


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return sorted(folder.iterdir())

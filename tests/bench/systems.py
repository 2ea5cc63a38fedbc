"""The systems under test: modalflow, and real Airflow with its own processes. Each knows how to take DAG files, start,
trigger a run, begin, and stop; and which processes it consists of.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import accounting
from database import Database

PARALLELISM = 16
ORPHANS = accounting.Orphans()


@dataclass
class Cost:
    """What a command cost: seconds on the clock, CPU seconds of it, its children and what it left behind."""

    wall: float
    cpu: float


class System:
    """What both have in common. A system belongs to one database and one folder; use it in a `with` block."""

    name: str
    skip: tuple[str, ...] = ()  # workloads that would say nothing new and take long

    def __init__(self, folder: Path, database: Database):
        self.folder, self.database = folder, database
        self.processes: dict[str, subprocess.Popen] = {}
        folder.mkdir(parents=True)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def spawn(self, role: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def stop(self) -> None:
        for role, process in self.processes.items():
            process.send_signal(self.stop_signal)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                print(f"{self.name}: {role} did not stop when asked to", file=sys.stderr)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()

    def children(self) -> set[int]:
        """The processes that were started here and are waited for here."""
        return {process.pid for process in self.processes.values()}

    def roots(self) -> dict[str, int]:
        """The root process of each role."""
        dead = [role for role, process in self.processes.items() if process.poll() is not None]
        if dead:
            raise RuntimeError(f"{self.name}: {dead} ended; see {self.folder}")
        return {role: process.pid for role, process in self.processes.items()}


class Modalflow(System):
    """Our host, as shipped. Its database is the benchmark's, so that both systems use the same Postgres."""

    name = "modalflow"
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, database: Database, label: str):
        super().__init__(folder, database)
        self.host = os.environ["BENCH_HOST"]
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        self.environment |= {"MODALFLOW_HOME": os.environ["BENCH_HOME"], "MODALFLOW_ENV": f"bench-{label}"}
        config = folder / "config.yaml"
        config.write_text(f"database:\n  connection_string: {database.url}\nexecutor:\n  parallelism: {PARALLELISM}\n")
        if self.run("env", "show", check=False)[0] == 0:
            self.run("destroy", "--yes")  # an earlier benchmark was interrupted
        self.run("create", "--config", str(config))

    def __exit__(self, *_) -> None:
        self.stop()
        self.run("destroy", "--yes")

    def run(self, *command: str, check: bool = True) -> tuple[int, Cost]:
        """One command of the host, to its end."""
        orphans, start = ORPHANS.cpu(self.children()), time.monotonic()
        with (self.folder / "commands.log").open("ab") as log:
            process = subprocess.Popen([self.host, *command], env=self.environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if check and process.returncode != 0:
            raise RuntimeError(f"modalflow-host {' '.join(command)[:80]} failed; see {self.folder}/commands.log")
        time.sleep(0.05)  # whom it killed is dead by now
        orphans = ORPHANS.cpu(self.children()) - orphans
        return process.returncode, Cost(wall, usage.ru_utime + usage.ru_stime + orphans)

    def take(self, folder: Path, count: int) -> Cost:
        """Validates and uploads all files of a folder."""
        verb = "update" if self.database.stored_dags() else "create"
        cost = self.run("dags", verb, "--file", *sorted(map(str, folder.glob("*.py"))))[1]
        assert self.database.stored_dags() == count
        return cost

    def start(self, everything: bool = False) -> None:
        self.spawn("serve", [self.host, "serve"], self.environment)

    def trigger(self, dag_id: str, run_id: str) -> None:
        self.run("dags", "trigger", "--dag-id", dag_id, "--run-id", run_id)

    def go(self, dag_ids: tuple[str, ...]) -> float:
        """All at once, as far as one command allows: the rows are changed together, the last one by the host."""
        now = self.database.now()
        self.database.pause(dag_ids[:-1], False)
        self.run("dags", "unpause", "--dag-id", dag_ids[-1])
        return now


class Airflow(System):
    """Real Airflow with LocalExecutor, as shipped."""

    name = "Airflow"
    stop_signal = signal.SIGTERM
    settings: dict[str, str] = {}
    # A hand-over of a second is seen in a chain of 20 as well as in one of 200.
    skip = ("chain of 200",)

    def __init__(self, folder: Path, database: Database, label: str):
        super().__init__(folder, database)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.dags = folder / "dags"
        self.token: str | None = None
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))
        } | {
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.address}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.address.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": "benchmark",
            "AIRFLOW__API_AUTH__JWT_SECRET": "benchmark" * 8,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url.replace("postgresql://", "postgresql+psycopg2://"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **self.settings,
        }

    def role(self, role: str) -> None:
        program = shutil.which("airflow", path=self.environment["PATH"])
        self.spawn(role, [program, role], self.environment)

    def take(self, folder: Path, count: int) -> Cost:
        """Lets the DAG processor alone read the files, until all are stored."""
        self.dags.symlink_to(folder)
        start = time.monotonic()
        self.role("dag-processor")
        wait_for(lambda: self.database.stored_dags() >= count, 300, "all DAGs stored")
        cost = Cost(time.monotonic() - start, accounting.cpu(self.processes["dag-processor"].pid))
        self.stop()
        return cost

    def start(self, everything: bool = False) -> None:
        for role in ("api-server", "scheduler", "dag-processor", *(("triggerer",) if everything else ())):
            self.role(role)
        wait_for(self.log_in, 120, "the api-server's first answer")

    def log_in(self) -> bool:
        try:
            self.token = self.ask("GET", "/auth/token")["access_token"]
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def trigger(self, dag_id: str, run_id: str) -> None:
        self.ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})

    def go(self, dag_ids: tuple[str, ...]) -> float:
        now = self.database.now()
        self.database.pause(dag_ids, False)
        return now


class AirflowTuned(Airflow):
    """The same with settings that trade idle CPU for latency: it never sleeps, takes all runs in each loop."""

    name = "Airflow, tuned"
    skip = ()
    settings = {
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "0",
        "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "100",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    }


SYSTEMS = {"modalflow": Modalflow, "airflow": Airflow, "airflow-tuned": AirflowTuned}


def wait_for(is_so, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)

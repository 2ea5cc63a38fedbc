"""The two systems: real Airflow with its four processes, and modalflow. Each starts on a fresh database of its own, takes
DAG files, and is clicked through the REST API of a real `airflow api-server` on that database. Nothing here knows what
is compared.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg2

PARALLELISM = 8
USER = "admin"


class Database:
    """A database made from Airflow's empty schema; dropped with its system."""

    def __init__(self, server: str):
        self.server, self.name = server, f"differential_{secrets.token_hex(6)}"
        self.url = f"{server.rsplit('/', 1)[0]}/{self.name}"
        # One at a time: the template must have no other user.
        self.administer("SELECT pg_advisory_lock(1)", f"CREATE DATABASE {self.name} TEMPLATE airflow_template")
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True

    def administer(self, *statements: str) -> None:
        server = psycopg2.connect(self.server)
        server.autocommit = True
        with server.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        server.close()

    def query(self, sql: str, *values) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def drop(self) -> None:
        self.connection.close()
        self.administer(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


class System:
    """What both have in common. Use it in a `with` block."""

    name: str
    stop_signal: signal.Signals

    def __init__(self, folder: Path, server: str, keep: bool):
        self.folder, self.keep = folder, keep
        self.database = Database(server)
        self.processes: dict[str, subprocess.Popen] = {}
        self.address = self.token = self.dags = None
        self.user, self.password = USER, secrets.token_hex(16)
        self.environment: dict[str, str] = {}
        folder.mkdir(parents=True)

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        if self.keep:
            print(f"{self.name}: kept {self.folder} and {self.database.url}", file=sys.stderr)
            return
        self.forget()
        self.database.drop()

    def spawn(self, role: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        with (self.folder / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        return self.processes[role]

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(self.stop_signal)
        for role, process in self.processes.items():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                print(f"{self.name}: {role} did not stop when asked to", file=sys.stderr)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()

    def is_ending(self, dags: list[str]) -> bool:
        """Whether a task that has ended has a process still, as far as that can be known."""
        return False

    def check(self) -> None:
        """Says so when a process ended by itself."""
        for role, process in self.processes.items():
            if process.poll() is not None:
                said = (self.folder / f"{role}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name}: {role} ended with {process.returncode}:\n{said}")

    def missing(self, dags: set[str]) -> set[str]:
        """Which of these DAGs are not in the database yet."""
        return dags - {dag for (dag,) in self.database.query("SELECT dag_id FROM serialized_dag")}

    def log_in(self) -> bool:
        self.check()
        try:
            answer = self.send("POST", "/auth/token", {"username": self.user, "password": self.password})
        except OSError:
            return False
        if answer[0] != 201:
            return False
        self.token = answer[1]["access_token"]
        return True

    def send(self, method: str, path: str, body=None) -> tuple[int, object]:
        """One request: status and answer. Only a server that is away raises."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        try:
            return status, json.loads(text) if text else None
        except ValueError:
            return status, text.decode(errors="replace")

    def click(self, method: str, path: str, body=None) -> tuple[int, object]:
        """A request of the REST API; the path is what follows /api/v2."""
        return self.send(method, f"/api/v2{path}", body)


class Airflow(System):
    """Real Airflow with LocalExecutor, on settings that spare it its sleeps; none of them changes what it decides."""

    name = "Airflow"
    stop_signal = signal.SIGTERM

    def make(self) -> None:
        self.dags = self.folder / "dags"
        self.dags.mkdir()
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        passwords = self.folder / "passwords.json"
        passwords.write_text(json.dumps({USER: self.password}))
        home = self.folder / "home"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON", "MODALFLOW"))}
        bundle = {
            "name": "dags-folder",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(self.dags)},
        }
        settings = {
            "CORE__DAGS_FOLDER": self.dags,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": PARALLELISM,
            "CORE__EXECUTION_API_SERVER_URL": f"{self.address}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 3600,
            "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 300,
            "CORE__DAGBAG_IMPORT_TIMEOUT": 120,
            "API__HOST": "127.0.0.1",
            "API__PORT": port,
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "DATABASE__SQL_ALCHEMY_CONN": self.database.url.replace("postgresql://", "postgresql+psycopg2://"),
            "DATABASE__LOAD_DEFAULT_CONNECTIONS": False,
            "USAGE_DATA_COLLECTION__ENABLED": False,
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.05,
            "SCHEDULER__MAX_TIS_PER_QUERY": 0,
            "SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": 100,
            "SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": 100,
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
        }
        self.environment = inherited | {
            "AIRFLOW_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **{f"AIRFLOW__{key}": str(value) for key, value in settings.items()},
        }
        self.airflow = shutil.which("airflow", path=self.environment["PATH"])
        self.spawn("api-server", [self.airflow, "api-server"], self.environment)

    def take(self, files: dict[str, Path | str], dags: set[str]) -> None:
        """Puts files into the folder; the DAG processor brings them in."""
        for name, content in files.items():
            place((self.folder / "home" if name.startswith("plugins/") else self.dags) / name, content)
        self.spawn("dag-processor", [self.airflow, "dag-processor"], self.environment)
        
        def done() -> bool:
            self.check()
            if errors := self.database.query("SELECT filename, stacktrace FROM import_error"):
                raise RuntimeError("\n".join(f"{file}: {stack}" for file, stack in errors))
            return not self.missing(dags)

        wait_for(done, 600, "all DAGs stored")

    def start(self) -> None:
        wait_for(self.log_in, 180, "the api-server's first answer")
        for role in ("scheduler", "triggerer"):
            self.spawn(role, [self.airflow, role], self.environment)

    def value(self, row: dict) -> object:
        """What an XCom's row stands for."""
        return row["value"]

    def places(self) -> dict[str, str]:
        """Paths that may show up in rows, and what to call them."""
        return {str(self.dags): "<dags>", str(self.folder / "home"): "<airflow>", str(self.folder): "<folder>"}

    def forget(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)


class Modalflow(System):
    """Our host, as shipped: `create`, `dags create`, `serve`, and `ui` for the clicks."""

    name = "modalflow"
    stop_signal = signal.SIGINT

    def make(self) -> None:
        self.host = os.environ["MODALFLOW_TEST_HOST"]
        self.env = f"d-{secrets.token_hex(6)}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
        self.environment = inherited | {"MODALFLOW_HOME": os.environ["MODALFLOW_TEST_HOME"], "MODALFLOW_ENV": self.env}
        config = self.folder / "config.yaml"
        # Values of more than a few bytes become files, so that both ways of an XCom are compared.
        config.write_text(
            f"database:\n  connection_string: {self.database.url}\n"
            f"executor:\n  parallelism: {PARALLELISM}\nscheduler:\n  parse_timeout_seconds: 120\n"
            "xcom:\n  inline_bytes: 12\n"
        )
        self.command("create", "--config", str(config))
        self.shown = json.loads(self.command("env", "show", "--output", "json"))
        self.dags = Path(self.shown["dags"])

    def command(self, *arguments: str) -> str:
        ended = subprocess.run(
            [self.host, *arguments], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if ended.returncode != 0:
            raise RuntimeError(f"modalflow-host {' '.join(arguments)[:300]}:\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def take(self, files: dict[str, Path | str], dags: set[str]) -> None:
        """Brings the Python files in with `dags create`; what they read stands in the folder before."""
        staged, plugins = self.folder / "staged", Path(self.shown["volume"])
        for name, content in files.items():
            is_dag = name.endswith(".py") and "/" not in name
            place((staged if is_dag else plugins if name.startswith("plugins/") else self.dags) / name, content)
        taken = {str(path) for path in staged.glob("*.py")}
        refused: set[str] = set()
        while taken:
            try:
                self.command("dags", "create", "--file", *sorted(taken))
                break
            except RuntimeError as error:
                # All or nothing is brought in: once more without the files that were named.
                named = {str(staged / name) for name in re.findall(r"^(\S+\.py): ", str(error), re.MULTILINE)} & taken
                if not named:
                    raise
                print(f"modalflow refuses {', '.join(Path(name).name for name in sorted(named))}", file=sys.stderr)
                refused, taken = refused | named, taken - named
        if not refused and self.missing(dags):
            raise RuntimeError(f"modalflow: {self.missing(dags)} are missing")

    def start(self) -> None:
        self.spawn("serve", [self.host, "serve"], self.environment)
        ui = self.spawn("ui", [self.host, "ui"], self.environment)
        said = self.folder / "ui.log"
        wait_for(lambda: ui.poll() is not None or "password: " in said.read_text(), 180, "the UI's address")
        facts = dict(line.split(": ", 1) for line in said.read_text().splitlines() if line.startswith(("url: ", "user: ", "password: ")))
        self.address, self.user, self.password = facts["url"], facts["user"], facts["password"]
        wait_for(self.log_in, 60, "the api-server's first answer")

    def is_ending(self, dags: list[str]) -> bool:
        question = """
            SELECT EXISTS (SELECT FROM modalflow.dispatch x JOIN task_instance ti ON ti.id = x.ti_id
                            WHERE ti.dag_id = ANY(%s) AND ti.state IN ('success', 'failed', 'skipped'))"""
        return self.database.query(question, list(dags))[0][0]

    def value(self, row: dict) -> object:
        """A reference is resolved to the file on the volume."""
        value = row["value"]
        reference = value.get("__modalflow_xcom__", {}) if isinstance(value, dict) else {}
        if "uri" not in reference:
            return value
        store, _, path = reference["uri"].partition(":")
        assert store == "xcom", value
        return json.loads((Path(self.shown["xcom"]) / path).read_bytes())

    def places(self) -> dict[str, str]:
        root = self.shown["root"]
        return {str(self.dags): "<dags>", f"{root}/airflow": "<airflow>", root: "<folder>", str(self.folder): "<folder>"}

    def forget(self) -> None:
        subprocess.run([self.host, "destroy", "--yes"], env=self.environment, capture_output=True)
        shutil.rmtree(self.folder.parent, ignore_errors=True)


SYSTEMS = {"airflow": Airflow, "modalflow": Modalflow}


def place(path: Path, content: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(content)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(is_so, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.1)

"""A real Airflow with ModalExecutor: API server or webserver, scheduler and DAG processor of the version that this Python has,
an emulator as its Modal, and two DAGs. Run by tests/hybrid/main.rs and tests/hybrid/run.

With MODALFLOW_TEST_LIVE=1 Modal itself runs the tasks, with the token of Modal's own variables or file; a relay brings their
requests here. What is made there has names of its own and is removed, also after a failure or Ctrl-C.

Prints a line a check; ends with 1 when one fails.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import psycopg2
from airflow import __version__ as VERSION

from relay import Relay, stop_app

HERE = Path(__file__).parent
MAJOR = int(VERSION.split(".")[0])
BIN = Path(sys.executable).parent
UNFINISHED = ("queued", "running")
LIVE = os.environ.get("MODALFLOW_TEST_LIVE") == "1"
#: Live, images are built and containers come up elsewhere.
PATIENCE = float(os.environ.get("HYBRID_PATIENCE", 900 if LIVE else 240))


class House:
    """Everything of one run, gone afterwards."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="modalflow-hybrid-"))
        self.processes: dict[str, subprocess.Popen] = {}
        self.server = os.environ["MODALFLOW_TEST_DATABASE_URL"]
        self.database = f"hybrid_{secrets.token_hex(6)}"
        self.url = f"{self.server.rsplit('/', 1)[0]}/{self.database}"
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.environment: dict[str, str] = {}
        suffix = secrets.token_hex(4)
        self.app, self.volume = f"hybrid-{VERSION}-{suffix}".replace(".", "-"), f"hybrid-logs-{suffix}"
        self.relay = Relay("127.0.0.1", self.port, suffix, os.environ.get("MODAL_ENVIRONMENT", "")) if LIVE else None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for role, process in self.processes.items():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                say(f"{role} did not stop when asked to")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        left = self.leave_modal() if LIVE else []
        if kind is not None:
            for log in sorted(self.folder.glob("*.log")):
                say(f"---- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        self.administer(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")
        if not os.environ.get("HYBRID_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)
        if left and kind is None:
            raise RuntimeError(f"still on Modal: {', '.join(left)}")

    def leave_modal(self) -> list[str]:
        """Removes all that was made there, each thing whatever becomes of the others. Answers what could not be removed."""
        import modal

        environment = os.environ.get("MODAL_ENVIRONMENT") or None
        steps = {
            f"the relay {self.relay.name}": self.relay.close,
            f"the app {self.app}": lambda: stop_app(self.app, environment),
            f"the volume {self.volume}": lambda: modal.Volume.objects.delete(
                self.volume, allow_missing=True, environment_name=environment
            ),
        }
        left = []
        for what, remove in steps.items():
            try:
                remove()
            except Exception as error:
                left.append(what)
                say(f"{what} is still on Modal: {error}")
        return left

    def administer(self, *statements: str) -> None:
        server = psycopg2.connect(self.server)
        server.autocommit = True
        with server.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        server.close()

    def query(self, sql: str) -> list[tuple]:
        connection = psycopg2.connect(self.url)
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = cursor.fetchall()
        connection.close()
        return rows

    def spawn(self, role: str, *command: str) -> subprocess.Popen:
        with (self.folder / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True
            )
        return self.processes[role]

    def run(self, *command: str) -> str:
        ended = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.folder)
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}:\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def check(self) -> None:
        for role, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{role} ended with {process.returncode}")

    def wait(self, what: str, is_true) -> None:
        until = time.monotonic() + PATIENCE
        while not is_true():
            self.check()
            if time.monotonic() > until:
                raise RuntimeError(f"waited in vain: {what}")
            time.sleep(0.2)

    # One after the other.

    def make_airflow(self) -> None:
        template = ""
        if VERSION == "3.3.2":
            # What tests/run has migrated already. One at a time: the template must have no other user.
            template = "TEMPLATE airflow_template"
        self.administer("SELECT pg_advisory_lock(1)", f"CREATE DATABASE {self.database} {template}")
        dags = self.folder / "dags"
        shutil.copytree(HERE / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
        passwords = self.folder / "passwords.json"
        passwords.write_text(json.dumps({"admin": self.password}))
        settings = {
            "CORE__EXECUTOR": "LocalExecutor,Modal:modalflow.executor.modal_executor.ModalExecutor",
            "CORE__DAGS_FOLDER": dags,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__PARALLELISM": 4,
            "CORE__FERNET_KEY": "",
            "DATABASE__SQL_ALCHEMY_CONN": self.url.replace("postgresql://", "postgresql+psycopg2://"),
            "DATABASE__LOAD_DEFAULT_CONNECTIONS": False,
            "LOGGING__LOGGING_CONFIG_CLASS": "modalflow.logging_config.LOGGING_CONFIG",
            "USAGE_DATA_COLLECTION__ENABLED": False,
            "MODAL_EXECUTOR__APP_NAME": self.app,
            "MODAL_EXECUTOR__VOLUME_NAME": self.volume,
        }
        if MAJOR == 2:
            settings |= {
                "SCHEDULER__STANDALONE_DAG_PROCESSOR": True,
                "MODAL_EXECUTOR__SECRETS": "hybrid-database",
                "WEBSERVER__WEB_SERVER_PORT": self.port,
                "WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
                "WEBSERVER__SECRET_KEY": secrets.token_hex(16),
                "WEBSERVER__WORKERS": 1,
                "API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
            }
        else:
            settings |= {
                "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
                "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
                "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
                "API__HOST": "127.0.0.1",
                "API__PORT": self.port,
                "API__WORKERS": 1,
                "API__SECRET_KEY": secrets.token_hex(16),
                "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            }
        foreign = ("AIRFLOW", "MODALFLOW", "PYTHON") if LIVE else ("AIRFLOW", "MODAL", "PYTHON")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        if not LIVE:
            inherited["MODAL_CONFIG_PATH"] = str(self.folder / "none.toml")
        self.environment = inherited | {
            "AIRFLOW_HOME": str(self.folder / "home"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            **{f"AIRFLOW__{name}": str(value) for name, value in settings.items()},
        }
        # Where the package lies, when it is not installed beside Airflow.
        if path := os.environ.get("PYTHONPATH"):
            self.environment["PYTHONPATH"] = path
        if not template:
            self.run(str(BIN / "airflow"), "db", "migrate")
        if MAJOR == 2:
            who = ["--username", "admin", "--firstname", "A", "--lastname", "B", "--email", "a@example.com", "--role", "Admin"]
            self.run(str(BIN / "airflow"), "users", "create", *who, "--password", self.password)

    def start_modal(self) -> None:
        if LIVE:
            self.relay.__enter__()
            self.environment["AIRFLOW__MODAL_EXECUTOR__HOST_URL"] = f"{self.relay.url}/execution/"
            return
        from modalflow.host import binary

        log = self.folder / "emulator.out"
        with log.open("wb") as out, (self.folder / "emulator.log").open("wb") as errors:
            self.processes["emulator"] = subprocess.Popen(
                [binary(), "emulator", "--state", str(self.folder / "modal"), "--listen", "127.0.0.1:0", "--python", sys.executable],
                stdout=out,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
        self.wait("the emulator's address", lambda: log.read_text().count("\n") == 3)
        for line in log.read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value

    def deploy(self) -> None:
        arguments = ["--variable", "HYBRID_WORD=blue", "--variable", f"AIRFLOW_HOME=/tmp/{self.app}"]
        if MAJOR == 2:
            # Tasks of Airflow 2 speak with the database.
            self.run(
                str(BIN / "modal"),
                "secret",
                "create",
                "hybrid-database",
                f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN={self.environment['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN']}",
                f"AIRFLOW__WEBSERVER__SECRET_KEY={self.environment['AIRFLOW__WEBSERVER__SECRET_KEY']}",
            )
        self.run(str(BIN / "airflow"), "modalflow", "deploy", *arguments)
        say(self.run(str(BIN / "airflow"), "modalflow", "check").strip().splitlines()[-1].split(" at ")[0])

    def start_airflow(self) -> None:
        for role in ("webserver" if MAJOR == 2 else "api-server", "dag-processor", "scheduler"):
            self.spawn(role, str(BIN / "airflow"), role)
        path = "/health" if MAJOR == 2 else "/api/v2/version"
        self.wait("the web server answers", lambda: answers(f"http://127.0.0.1:{self.port}{path}"))

    def await_runs(self) -> dict[str, str]:
        def states() -> dict[str, str]:
            return dict(self.query("SELECT dag_id, state FROM dag_run"))

        def are_over() -> bool:
            found = states()
            return len(found) == 2 and not set(found.values()) & set(UNFINISHED)

        self.wait("both runs to end", are_over)
        return states()

    def sign_in(self) -> dict[str, str]:
        """What a request of the API needs."""
        if MAJOR == 2:
            pair = base64.b64encode(f"admin:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        body = json.dumps({"username": "admin", "password": self.password}).encode()
        answer = self.ask("/auth/token", {"Content-Type": "application/json"}, body)
        return {"Authorization": f"Bearer {json.loads(answer)['access_token']}"}

    def ask(self, path: str, headers: dict[str, str], body: bytes | None = None) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def shown_log(self, dag_id: str, task_id: str, headers: dict[str, str]) -> str:
        """The log of a task's first try as the UI gets it."""
        (run_id,) = self.query(f"SELECT run_id FROM dag_run WHERE dag_id = '{dag_id}'")[0]
        version = "v1" if MAJOR == 2 else "v2"
        path = f"/api/{version}/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances/{task_id}/logs/1?full_content=true"
        return self.ask(path, {"Accept": "application/json", **headers})

    def stop(self, role: str) -> None:
        process = self.processes.pop(role)
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    def log_of(self, dag_id: str, task_id: str) -> str:
        """The newest log of a task, from the volume."""
        script = (
            "import sys, modal\n"
            "volume = modal.Volume.from_name(sys.argv[1])\n"
            "found = [entry.path for entry in volume.listdir('/', recursive=True) if all(part in entry.path for part in sys.argv[2:]) and entry.path.endswith('.log')]\n"
            "sys.stdout.buffer.write(b''.join(volume.read_file(sorted(found)[-1])) if found else b'no file')\n"
        )
        return self.run(sys.executable, "-c", script, self.volume, f"dag_id={dag_id}", f"task_id={task_id}")


def main() -> None:
    # Whoever ends us wants what was made to be gone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = []

    def expect(what: str, found, wanted) -> None:
        say(f"{what}: {found}")
        if found != wanted:
            failed.append(f"{what}: {found}, not {wanted}")

    with House() as house:
        house.make_airflow()
        house.start_modal()
        house.deploy()
        house.start_airflow()
        runs = house.await_runs()
        expect("runs", runs, {"hybrid_success": "success", "hybrid_failure": "failed"})
        tasks = dict(house.query("SELECT task_id, state FROM task_instance ORDER BY task_id"))
        on_modal = {"exit_1": "failed", "hello": "success", "number": "success", "total": "success", "variables": "success"}
        expect("tasks", tasks, {"at_home": "success", **on_modal})
        calls = house.query("SELECT task_id FROM task_instance WHERE external_executor_id LIKE 'fc-%' ORDER BY task_id")
        expect("tasks with a call", [task_id for (task_id,) in calls], list(on_modal))
        said = {
            "hello": "hello from a container" in house.log_of("hybrid_success", "hello"),
            "variables": "the word is blue" in house.log_of("hybrid_success", "variables"),
            "total": "the total is 42" in house.log_of("hybrid_success", "total"),
            "exit_1": "exit code 1" in house.log_of("hybrid_failure", "exit_1"),
        }
        expect("logs on the volume", said, dict.fromkeys(said, True))
        signed_in = house.sign_in()
        for dag_id, task_id, line in (("hybrid_success", "hello", "hello from a container"), ("hybrid_failure", "exit_1", "exit code 1")):
            shown = house.shown_log(dag_id, task_id, signed_in)
            expect(f"the UI shows the log of {task_id}, from the volume", (line in shown, "Read from the volume" in shown), (True, True))
        house.check()
        if not LIVE:
            house.stop("emulator")
            shown = house.shown_log("hybrid_success", "hello", signed_in)
            expect("without Modal the UI says so", "can't be read" in shown, True)
            house.check()
        if failed:
            raise RuntimeError("; ".join(failed))
    say(f"Airflow {VERSION} ran its tasks on Modal")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()

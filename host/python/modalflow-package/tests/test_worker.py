"""The function that runs on Modal, here in this process: what it starts, as whom, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import unittest
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from support import FOLDER, IS_AIRFLOW_2, TOKEN, command, key_of, wait, workload

from airflow import __version__ as airflow_version

from modalflow import worker

DAG = """
from airflow.decorators import dag, task

@dag(schedule=None, start_date=__import__("datetime").datetime(2026, 1, 1))
def probe():
    @task
    def hello():
        raise SystemExit(3)

    hello()

probe()
"""
#: A database of Airflow 2 in which a container is at work on the task.
FIRST_CONTAINER = """
import sys
from airflow import settings
from airflow.models import DagBag, TaskInstance
from airflow.utils import db, timezone

db.initdb()
bag = DagBag(include_examples=False)
bag.sync_to_db()
now = timezone.utcnow()
bag.get_dag("probe").create_dagrun(
    run_id=sys.argv[1], run_type="manual", state="running", execution_date=now, data_interval=(now, now), external_trigger=True
)
session = settings.Session()
ti = session.query(TaskInstance).one()
ti.state, ti.try_number, ti.job_id, ti.hostname, ti.pid = "running", 1, 1234, "the-first", 56
session.commit()
"""
#: Much more than an argument may have.
LARGE = "x" * 300_000


def call(work: dict) -> dict:
    return {"workload": json.dumps({"airflow": airflow_version, **work})}


class CommandCase(unittest.TestCase):
    def seen(self, work: dict) -> dict:
        """What the process gets, told by the function that would start it."""
        seen = {}

        def run(command, environment):
            seen.update(command=command, environment=environment)
            if "--json-path" in command:
                path = Path(command[-1])
                seen.update(path=path, text=path.read_text(), mode=stat.S_IMODE(path.stat().st_mode))
            return 0

        with mock.patch.object(worker, "_run", run):
            seen["answer"] = worker.run_workload(call(work))
        return seen

    def test_a_workload_comes_in_a_file_that_only_its_owner_reads(self):
        text = json.dumps({"token": TOKEN, "large": LARGE})
        seen = self.seen({"workload": text, "server": "https://airflow.example.com/execution/"})
        self.assertNotIn(TOKEN, " ".join(seen["command"]))
        self.assertNotIn(TOKEN, " ".join(f"{name}={value}" for name, value in seen["environment"].items()))
        self.assertEqual(seen["text"], text)
        self.assertEqual(seen["mode"], 0o600)
        self.assertFalse(seen["path"].exists())
        self.assertEqual(seen["environment"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"], "https://airflow.example.com/execution/")

    def test_a_command_runs_with_this_python(self):
        key = key_of("a:b", run_id="manual__2026-01-01T00:00:00+00:00")
        seen = self.seen({"command": ["airflow", "tasks", "run", key.dag_id, key.task_id, key.run_id, "--local"]})
        self.assertEqual(seen["command"], [sys.executable, "-m", "airflow", "tasks", "run", "probe", "a:b", key.run_id, "--local"])
        # So that Airflow 2 prints what the task prints.
        self.assertEqual(seen["environment"]["AIRFLOW_IS_EXECUTOR_CONTAINER"], "True")

    def test_the_task_does_not_get_the_containers_token(self):
        with mock.patch.dict(os.environ, {"MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1"}):
            seen = self.seen({"command": ["airflow", "version"]})
        self.assertFalse({"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"} & set(seen["environment"]))

    def test_nothing_but_the_exit_code_is_kept(self):
        seen = self.seen({"command": ["airflow", "version"]})
        self.assertEqual(seen["answer"], {"exit_code": 0})

    def test_an_image_with_another_airflow_says_so(self):
        with self.assertRaisesRegex(RuntimeError, "the scheduler is Airflow 1.10.15, this image has .*airflow modalflow deploy"):
            worker.run_workload({"workload": json.dumps({"airflow": "1.10.15", "command": ["airflow"]})})


class ProcessCase(unittest.TestCase):
    def test_airflow_itself_is_started(self):
        self.assertEqual(worker.run_workload(call({"command": ["airflow", "version"]})), {"exit_code": 0})

    @unittest.skipIf(IS_AIRFLOW_2, "Airflow 2 has no workloads")
    def test_a_workload_that_airflow_cannot_read_fails(self):
        self.assertEqual(worker.run_workload(call({"workload": "{}"})), {"exit_code": 1})

    @unittest.skipIf(IS_AIRFLOW_2, "Airflow 2 asks its database")
    def test_a_try_that_another_container_has_is_left_to_it(self):
        """Airflow's own program, refused at its start; any other refusal is a failure."""
        detail = {"reason": "invalid_state", "message": "no", "previous_state": "running"}
        with self.execution_api(409, {"detail": detail}) as (server, asked):
            work = {"workload": workload(key_of("hello")).model_dump_json(), "server": server}
            self.assertEqual(worker.run_workload(call(work)), {"exit_code": 0, "left": True})
            with mock.patch.dict(os.environ, {"MODAL_TASK_ID": "ta-1"}):
                worker.run_workload(call(work))
        self.assertNotEqual(asked[0]["hostname"], "ta-1")
        self.assertEqual(asked[1]["hostname"], "ta-1")
        with self.execution_api(404, {"detail": "no such task"}) as (server, _):
            work = {"workload": workload(key_of("hello")).model_dump_json(), "server": server}
            self.assertEqual(worker.run_workload(call(work)), {"exit_code": 1})

    @unittest.skipUnless(IS_AIRFLOW_2, "Airflow 3 asks the Execution API")
    def test_a_try_that_another_container_has_stays_its_own(self):
        """Airflow's own program, with a database that has the try of the first container."""
        home, key = FOLDER / "second-container", key_of("hello")
        (home / "dags").mkdir(parents=True)
        (home / "dags" / "probe.py").write_text(DAG)
        variables = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        }
        with mock.patch.dict(os.environ, variables):
            subprocess.run([sys.executable, "-c", FIRST_CONTAINER, key.run_id], check=True, capture_output=True)
            with closing(sqlite3.connect(home / "airflow.db")) as database:
                before = database.execute("SELECT * FROM task_instance").fetchall()
                self.assertEqual(worker.run_workload(call({"command": command(key)})), {"exit_code": 0})
                self.assertEqual(database.execute("SELECT * FROM task_instance").fetchall(), before)
                # It came as far as to ask.
                self.assertEqual(database.execute("SELECT job_type, state FROM job").fetchall(), [("LocalTaskJob", "success")])

    @contextmanager
    def execution_api(self, status: int, answer: dict):
        """One that answers so to whoever wants to start a task; and what it was asked."""
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/execution/", asked
        finally:
            server.shutdown()
            server.server_close()

    @unittest.skipIf(IS_AIRFLOW_2, "Airflow 2 has no workloads")
    def test_airflow_prints_the_workload_without_its_token(self):
        said = []

        def run(command, environment):
            retries = {"AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1"}
            ended = subprocess.run(command, env={**environment, **retries}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            said.append(ended.stdout)
            return ended.returncode

        nowhere = {"workload": workload(key_of("succeed")).model_dump_json(), "server": "http://127.0.0.1:9/execution/"}
        with mock.patch.object(worker, "_run", run):
            self.assertNotEqual(worker.run_workload(call(nowhere)), {"exit_code": 0})
        self.assertIn("Executing workload", said[0])
        self.assertIn("task_id='succeed'", said[0])
        self.assertNotIn(TOKEN, said[0])

    def test_the_exit_code_comes_back(self):
        with mock.patch.object(worker, "_command", lambda work: _command([sys.executable, "-c", "raise SystemExit(3)"])):
            self.assertEqual(worker.run_workload(call({})), {"exit_code": 3})

    def test_a_cancelled_call_ends_its_task_and_what_the_task_started(self):
        note = Path(os.environ["AIRFLOW_HOME"]).parent / "children"
        script = (
            "import os, subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
            "time.sleep(600)\n"
        )

        def interrupt():
            wait(lambda: note.exists() and len(note.read_text().split()) == 2, "the children")
            # As the container's runtime does it: an exception in the main thread.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)

        class Cancelled(BaseException):
            pass

        def cancel(*_):
            raise Cancelled

        before = signal.signal(signal.SIGUSR2, cancel)
        self.addCleanup(signal.signal, signal.SIGUSR2, before)
        threading.Thread(target=interrupt, daemon=True).start()
        with mock.patch.object(worker, "_command", lambda work: _command([sys.executable, "-c", script])):
            with self.assertRaises(Cancelled):
                worker.run_workload(call({}))
        pids = [int(pid) for pid in note.read_text().split()]
        wait(lambda: not any(_is_alive(pid) for pid in pids), "the ends of both")

    @unittest.skipIf(os.geteuid() != 0, "only root has a choice")
    def test_a_task_of_a_root_container_runs_as_its_user(self):
        logs = Path(os.environ["AIRFLOW_HOME"]).parent / "logs-of-nobody"
        said = logs / "uid"
        script = f"import os; open({str(said)!r}, 'w').write(str(os.getuid()))"
        logs.parent.chmod(0o755)
        logs.mkdir()
        with mock.patch.dict(os.environ, {worker.USER_VARIABLE: "nobody", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs)}):
            with mock.patch.object(worker, "_command", lambda work: _command(["/usr/bin/env", "python3", "-c", script])):
                worker.run_workload(call({}))
        self.assertNotEqual(said.read_text(), "0")


class _command:
    """Stands in for the context manager of the same name."""

    def __init__(self, command):
        self.command = command

    def __enter__(self):
        return self.command

    def __exit__(self, *_):
        pass


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


if __name__ == "__main__":
    unittest.main()

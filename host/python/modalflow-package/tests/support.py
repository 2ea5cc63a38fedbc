"""What the cases stand on: an emulator (or Modal itself), a deployed probe, executors as a scheduler has them."""

from __future__ import annotations

import atexit
import os
import secrets
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from pathlib import Path
from types import SimpleNamespace

#: Modal itself instead of the emulator: the token is taken from Modal's own variables or file.
LIVE = os.environ.get("MODALFLOW_TEST_LIVE") == "1"
#: Seconds; long, because the machine may be slow.
PATIENCE = 300.0
SUFFIX = secrets.token_hex(4)
APP, DICT = f"modalflow-probe-{SUFFIX}", f"modalflow-probe-{SUFFIX}"

_folder = tempfile.TemporaryDirectory(prefix="modalflow-cases-")
FOLDER = Path(_folder.name)

os.environ |= {
    "AIRFLOW_HOME": str(FOLDER / "airflow"),
    # What `allow_forks` asks for, here before executors import gRPC.
    "GRPC_ENABLE_FORK_SUPPORT": "1",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "7",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "https://airflow.example.com/execution/",
    "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    "AIRFLOW__MODAL_EXECUTOR__APP_NAME": APP,
    "AIRFLOW__MODAL_EXECUTOR__CONN_ID": "",
}

from airflow.models.taskinstancekey import TaskInstanceKey  # noqa: E402

from modalflow.executor.modal_executor import AIRFLOW_VERSION, ModalExecutor  # noqa: E402
from modalflow.host import binary  # noqa: E402

IS_AIRFLOW_2 = AIRFLOW_VERSION < (3,)
TOKEN = "a-token-that-must-not-show"


class Modal:
    """The emulator in a process of its own; nothing with LIVE."""

    process: subprocess.Popen | None = None
    is_started = False

    @classmethod
    def start(cls) -> None:
        """Once in a process; it ends with the process."""
        if cls.is_started:
            return
        cls.is_started = True
        atexit.register(cls.stop)
        if not LIVE:
            cls.launch()
        cls.deploy()

    @classmethod
    def launch(cls, port: int = 0) -> None:
        said = FOLDER / f"emulator-{secrets.token_hex(4)}.out"
        with said.open("wb") as out:
            cls.process = subprocess.Popen(
                [binary(), "emulator", "--state", str(FOLDER / "modal"), "--listen", f"127.0.0.1:{port}", "--python", sys.executable],
                stdout=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # Containers find the probe, wherever the cases lie.
                env={**os.environ, "MODAL_CONFIG_PATH": str(FOLDER / "none.toml")},
            )
        wait(lambda: said.read_text().count("\n") == 3, "the emulator's address")
        for line in said.read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = value
        cls.port = int(os.environ["MODAL_SERVER_URL"].rsplit(":", 1)[1])

    @classmethod
    def deploy(cls) -> None:
        import modal

        import probe

        modal.Dict.from_name(DICT, create_if_missing=True).hydrate()
        app = modal.App(APP)
        image = modal.Image.debian_slim().env({"PROBE_DICT": DICT})
        app.function(name="run_workload", image=image.add_local_python_source("probe"), include_source=False, max_containers=8, timeout=600)(probe.run_workload)
        other = image.env({"PROBE_IMAGE": "other"})
        app.function(name="run_workload_other", image=other.add_local_python_source("probe"), include_source=False, max_containers=8, timeout=600)(probe.run_workload)
        app.deploy()

    @classmethod
    def stop(cls) -> None:
        import modal

        subprocess.run([sys.executable, "-m", "modal", "app", "stop", "--yes", APP], check=False, capture_output=True)
        modal.Dict.objects.delete(DICT, allow_missing=True)
        if cls.process is not None:
            cls.process.terminate()
            cls.process.wait(30)


def starts(key: TaskInstanceKey) -> int:
    """How often the probe began with this task."""
    return len(calls_of(key))


def calls_of(key: TaskInstanceKey) -> list[str]:
    """The ids of the calls that the probe began with this task."""
    import modal

    wanted = [key.dag_id, key.task_id, key.run_id, key.try_number], command(key)
    return [name.split()[0] for name, entry in modal.Dict.from_name(DICT).items() if entry in wanted]


def image_of(key: TaskInstanceKey) -> str:
    """Which image the probe found itself on; empty for the one of all tasks."""
    import modal

    return modal.Dict.from_name(DICT)[f"image of {key.run_id}"]


def wait(is_true, what: str, patience: float = PATIENCE) -> None:
    until = time.monotonic() + patience
    while not is_true():
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.05)


def key_of(task_id: str, run_id: str = "manual__2026-01-01T00:00:00+00:00", try_number: int = 1) -> TaskInstanceKey:
    return TaskInstanceKey("probe", task_id, run_id, try_number, -1)


def command(key: TaskInstanceKey) -> list[str]:
    return ["airflow", "tasks", "run", key.dag_id, key.task_id, key.run_id, "--local"]


def workload(key: TaskInstanceKey, executor_config=None, assigned: str | None = None):
    from airflow.executors import workloads

    fields = {
        "id": uuid.uuid4(),
        "dag_version_id": uuid.uuid4(),
        "task_id": key.task_id,
        "dag_id": key.dag_id,
        "run_id": key.run_id,
        "try_number": key.try_number,
        "map_index": key.map_index,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "executor_config": executor_config,
        "external_executor_id": assigned,
        "parent_context_carrier": None,
        "context_carrier": None,
        "queued_dttm": None,
    }
    read = workloads.ExecuteTask.model_validate(
        {
            "ti": fields,
            "dag_rel_path": "probe.py",
            "bundle_info": {"name": "dags-folder", "version": None},
            "log_path": "probe.log",
            "token": TOKEN,
        }
    )
    return read


class Case(unittest.TestCase):
    """An executor is started with `executor`, ended with the case. Its events are kept in `events`."""

    maxDiff = None

    def setUp(self):
        self.events: dict[TaskInstanceKey, list[tuple[str, object]]] = {}

    def executor(self, start: bool = True, **options) -> ModalExecutor:
        made = ModalExecutor(**options)
        self.addCleanup(made.line.stop)
        if start:
            made.start()
        return made

    def queue(self, executor, task_id: str, executor_config=None, key=None, assigned=None) -> TaskInstanceKey:
        """As a scheduler does."""
        key = key or key_of(task_id, run_id=f"manual__2026-01-01T00:00:00+00:00_{uuid.uuid4()}")
        if IS_AIRFLOW_2:
            executor.execute_async(key, command(key), "default", executor_config)
            executor.running.add(key)
        else:
            work = workload(key, executor_config, assigned)
            executor.queued_tasks[key] = work
            executor._process_workloads([work])
        return key

    def beat(self, executor) -> None:
        """As a scheduler's loop does: sync, then its events are taken."""
        executor.sync()
        for key, (state, info) in executor.get_event_buffer().items():
            self.events.setdefault(key, []).append((str(getattr(state, "value", state)), info))

    def until(self, executor, is_true, what: str) -> None:
        def look() -> bool:
            self.beat(executor)
            return is_true()

        wait(look, f"{what}; events: {self.events}")

    def end_of(self, executor, *keys: TaskInstanceKey) -> list[str]:
        """The states that these end in."""
        ends = ("success", "failed")
        self.until(executor, lambda: all(self.states(key) and self.states(key)[-1] in ends for key in keys), f"the ends of {keys}")
        return [self.states(key)[-1] for key in keys]

    def states(self, key: TaskInstanceKey) -> list[str]:
        return [state for state, _ in self.events.get(key, [])]

    def info(self, key: TaskInstanceKey) -> str:
        return str(self.events[key][-1][1])

    def call_id(self, executor, key: TaskInstanceKey) -> str:
        """The id that Airflow is told of."""
        self.until(executor, lambda: self.call_ids(key), f"the call id of {key}")
        return self.call_ids(key)[0]

    def call_ids(self, key: TaskInstanceKey) -> list[str]:
        return [info for state, info in self.events.get(key, []) if state == "queued" and info.startswith("fc-")]

    def assert_idle(self, executor) -> None:
        """Nothing is left of what was run."""
        self.assertEqual(executor.running, set())
        self.assertEqual(executor.calls, {})
        self.assertEqual(executor.current, {})
        self.assertEqual(executor.slots_available, 7)


def task_instance(key: TaskInstanceKey, call_id: str | None):
    return SimpleNamespace(key=key, external_executor_id=call_id, try_number=key.try_number, id="x")

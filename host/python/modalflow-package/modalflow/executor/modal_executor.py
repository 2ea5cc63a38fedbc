"""Airflow's executor that runs each task as a function call on Modal. Thin: the host beside it starts, follows and cancels
calls; here it is decided what that means to Airflow.

Works on Airflow 2.11 (commands) and on 3.1 and later (workloads). No method waits for Modal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from airflow import __version__ as airflow_version
from airflow.configuration import conf as airflow_conf
from airflow.executors import base_executor
from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState

from modalflow.executor import settings as configuration
from modalflow.executor.line import Ended, Line, Refused, Started, allow_forks
from modalflow.executor.settings import Settings

#: What Airflow's own executors count with; each version keeps it elsewhere.
_stats = getattr(base_executor, "stats", None) or base_executor.Stats
AIRFLOW_VERSION = tuple(int(part) for part in airflow_version.split(".")[:2])
#: How Modal names a function call.
CALL_ID_PREFIX = "fc-"
#: Between a fault of the platform and the next start of the same workload, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
#: Ends that are nobody's fault here: the workload may be started again.
FAULTS_OF_THE_PLATFORM = ("PLATFORM_FAULT",)


@dataclass
class Call:
    """A workload that was handed to us, from then until its end."""

    uuid: str
    key: object
    payload: str
    executor_config: str = ""
    call_id: str = ""
    #: Containers that Modal lost or could not start for it.
    faults: int = 0
    #: When to start it again after such a fault.
    again_at: float | None = None


class ModalExecutor(BaseExecutor):
    """Runs tasks as function calls on Modal."""

    is_local = False
    is_production = True
    serve_logs = False
    supports_ad_hoc_ti_run = True
    supports_multi_team = True
    # What a worker of earlier versions is handed can be nothing but a task.
    supports_callbacks = AIRFLOW_VERSION >= (3, 3)
    supports_connection_test = AIRFLOW_VERSION >= (3, 3)
    supports_sentry = False
    sentry_integration = ""
    pre_assigns_external_executor_id = True
    # Airflow 2
    supports_pickling = False
    is_single_threaded = False
    change_sensor_mode_to_reschedule = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not hasattr(self, "conf"):
            self.conf = airflow_conf
        if not hasattr(self, "team_name"):
            self.team_name = None
        self.settings = Settings.read(self.conf)
        self.line = Line(self._target, self.settings.max_spawn_attempts)
        #: By the uuid that names a call at the host.
        self.calls: dict[str, Call] = {}
        #: The newest call of each key: a deferred task that goes on has the key of its first half.
        self.current: dict[object, str] = {}
        #: Ends that Airflow is told of in a sync.
        self._over: list[tuple[Call, str, str]] = []
        self._is_started = self._is_ending = False

    # Airflow's life cycle.

    def start(self) -> None:
        """Starts the host, and looks whether Modal lets us in."""
        self._is_started, self._is_ending = True, False
        url = configuration.execution_api_url(self.settings, self.conf)
        if AIRFLOW_VERSION >= (3,) and configuration.is_out_of_reach(url):
            self.log.warning(
                "Containers on Modal can't reach %s: set [modal_executor] host_url or [core] execution_api_server_url",
                url,
            )
        self.line.start()
        if self.settings.check_health_on_startup:
            self._check_health()

    def _check_health(self) -> None:
        try:
            health = self.line.health()
        except Exception as error:
            raise RuntimeError(f"ModalExecutor can't start: {error}") from error
        if health.problem:
            hint = health.hint or "[modal_executor] check_health_on_startup = False starts without Modal"
            raise RuntimeError(
                f"ModalExecutor can't start: {health.problem}\nhint: {hint}\n"
                "hint: `airflow modalflow deploy` brings the function to Modal"
            )
        self.log.info(
            "ModalExecutor uses function %s of app %s at %s",
            self.settings.function_name,
            self.settings.app_name,
            health.server_url,
        )

    def end(self) -> None:
        """Leaves. What runs goes on and is adopted by the next scheduler; [modal_executor] end_wait_timeout waits for it."""
        self._is_ending = True
        until = time.monotonic() + self.settings.end_wait_timeout
        self.sync()
        while self._awaits_ends() and time.monotonic() < until:
            time.sleep(0.2)
            self.sync()
        for call in list(self.calls.values()):
            # Nobody could ever find these again: their ids are not in the database.
            if not call.call_id or self._is_id_untold(call):
                self._drop(call, cancel=True)
        self.line.stop()

    def _awaits_ends(self) -> bool:
        """Whether a call runs. An end that follows the id in the same sync stays untold: nobody takes events any more."""
        over = {call.uuid for call, _, _ in self._over}
        return any(call.uuid not in over and call.again_at is None for call in self.calls.values())

    def terminate(self) -> None:
        """Ends everything that runs, now."""
        for call in list(self.calls.values()):
            self._drop(call, cancel=True)
        self.line.stop()

    def _is_id_untold(self, call: Call) -> bool:
        state, _ = self.event_buffer.get(call.key, (None, None))
        return state == TaskInstanceState.QUEUED

    # Workloads come in.

    def _process_workloads(self, workloads: Sequence) -> None:
        for workload in workloads:
            key = workload.ti.key if hasattr(workload, "ti") else workload.key
            for waiting in ("queued_tasks", "queued_callbacks", "queued_connection_tests"):
                getattr(self, waiting, {}).pop(key, None)
            self.running.add(key)
            ti = getattr(workload, "ti", None)
            self._begin(
                key,
                {"workload": workload.model_dump_json()},
                getattr(ti, "executor_config", None),
                getattr(ti, "external_executor_id", None),
            )

    def execute_async(self, key, command, queue=None, executor_config=None) -> None:
        """Airflow 2: a command. Its key is added to `running` by the base class, whatever happens here."""
        self.validate_airflow_tasks_run_command(command)
        self._begin(key, {"command": list(command)}, executor_config, None)

    def _begin(self, key, work: dict, executor_config, assigned: str | None) -> None:
        call = Call(uuid=_uuid(assigned, self.calls), key=key, payload=self._payload(work))
        self.calls[call.uuid] = call
        self.current[key] = call.uuid
        if assigned is None:
            self._tell_no_call(call)
        if executor_config:
            # The host reads and checks it. What is no JSON belongs to another executor (`pod_override`), or is told of by name.
            try:
                call.executor_config = json.dumps(executor_config, default=repr)
            except Exception as error:
                # Keys that are no text, circles, objects that can't be shown: this task's fault, no other's.
                self._conclude(call, TaskInstanceState.FAILED, f"its executor_config can't be sent to Modal: {error}")
                return
        self.line.spawn(call.uuid, call.payload, call.executor_config)

    def _payload(self, work: dict) -> str:
        server = configuration.execution_api_url(self.settings, self.conf) if "workload" in work else ""
        return json.dumps({"airflow": airflow_version, "server": server, **work})

    # Ends come back.

    def sync(self) -> None:
        """Takes in what the line has heard. One look, however many tasks there are."""
        self._drop_what_airflow_gave_up()
        for news in self.line.news():
            call = self.calls.get(news.uuid)
            if call is None:
                continue
            if isinstance(news, Started):
                self._started(call, news.call_id)
            elif isinstance(news, Ended):
                self._ended(call, news)
            elif isinstance(news, Refused):
                self._refused(call, news)
        if not self._is_ending:
            self._start_again()
        self._tell_ends()
        self._put_ids_last()

    def _started(self, call: Call, call_id: str) -> None:
        call.call_id = call_id
        if self.current.get(call.key) != call.uuid:
            return
        if isinstance(call.key, TaskInstanceKey):
            # The scheduler writes the info of such an event to external_executor_id and changes nothing else.
            self.event_buffer[call.key] = (TaskInstanceState.QUEUED, call_id)
        elif type(call.key).__name__ == "CallbackKey":
            self.change_state(call.key, "running", call_id, remove_running=False)

    def _tell_no_call(self, call: Call) -> None:
        """Has the scheduler store what is no call's id: an earlier try's, or a lost container's, would be adopted after a restart.
        Airflow 3.2 and later clear and assign the id when they queue a task."""
        if isinstance(call.key, TaskInstanceKey):
            self.event_buffer[call.key] = (TaskInstanceState.QUEUED, call.uuid)

    def _put_ids_last(self) -> None:
        """Of the events of several tries of a task the scheduler heeds the last: not the end of an earlier one."""
        for key, event in [(key, event) for key, event in self.event_buffer.items() if event[0] == TaskInstanceState.QUEUED]:
            del self.event_buffer[key]
            self.event_buffer[key] = event

    def _ended(self, call: Call, ended: Ended) -> None:
        if ended.meaning == "RETURNED":
            code = _exit_code(ended.result)
            if _has_left(ended.result):
                self._conclude(call, None, "another container runs it, or its try is over")
            elif code == 0:
                self._conclude(call, TaskInstanceState.SUCCESS, call.call_id)
            else:
                what = f"exit code {code}" if code is not None else f"an answer that is not its own: {ended.result!r}"
                self._conclude(call, TaskInstanceState.FAILED, f"its process on Modal ended with {what}")
        elif ended.meaning in FAULTS_OF_THE_PLATFORM and call.payload:
            self._after_fault(call, ended.what)
        else:
            self._conclude(call, TaskInstanceState.FAILED, ended.what)

    def _after_fault(self, call: Call, what: str) -> None:
        """Modal's fault, not the task's: the same workload again, with no try used up. If its first container has begun
        the task after all, the second one is refused by Airflow. A call that another one of its key has followed (the first half
        of a task that was deferred) has done what it was for."""
        if self.current.get(call.key) != call.uuid:
            self._drop(call, cancel=False)
            return
        call.faults += 1
        if call.faults >= self.settings.max_spawn_attempts:
            self._conclude(call, TaskInstanceState.FAILED, f"{what} ({call.faults} times)")
            return
        pause = min(FIRST_PAUSE * 2 ** (call.faults - 1), LONGEST_PAUSE)
        self.log.warning("No container could run %s: %s; started again in %.0f s", call.key, what, pause)
        call.again_at = time.monotonic() + pause
        self._tell_no_call(call)

    def _start_again(self) -> None:
        now = time.monotonic()
        for call in [call for call in self.calls.values() if call.again_at is not None and call.again_at <= now]:
            if self.current.get(call.key) != call.uuid:
                # Followed by another one meanwhile.
                self._drop(call, cancel=False)
                continue
            # Another call, so another key: with the old one Modal would answer with the old call.
            del self.calls[call.uuid]
            call.uuid, call.call_id, call.again_at = str(uuid4()), "", None
            self.calls[call.uuid] = call
            self.current[call.key] = call.uuid
            self.line.spawn(call.uuid, call.payload, call.executor_config)

    def _refused(self, call: Call, refused: Refused) -> None:
        hint = f"; {refused.hint}" if refused.hint else ""
        self._conclude(call, TaskInstanceState.FAILED, f"it could not be started on Modal: {refused.message}{hint}")

    def _target(self):
        """For the line, which asks in a thread of its own: a secrets backend may take its time."""
        return configuration.target(self.settings, self.team_name)

    def _conclude(self, call: Call, state, info: str) -> None:
        if state == TaskInstanceState.FAILED:
            self.log.error("%s: %s", call.key, info)
        elif state is None:
            self.log.warning("%s: %s; its heartbeats say how it goes on", call.key, info)
        self._over.append((call, state, info))

    def _tell_ends(self) -> None:
        over, self._over = self._over, []
        for call, state, info in over:
            if call.uuid not in self.calls:
                continue
            if self._is_id_untold(call):
                # One event a key: first the scheduler stores the call's id.
                self._over.append((call, state, info))
                continue
            is_current = self.current.get(call.key) == call.uuid
            self._drop(call, cancel=False)
            if is_current and state is None:
                # Whatever Airflow were told now would end the try of the container that has it.
                self.running.discard(call.key)
            elif is_current:
                self.change_state(call.key, state, info)

    def _drop(self, call: Call, cancel: bool) -> None:
        self.calls.pop(call.uuid, None)
        if self.current.get(call.key) == call.uuid:
            del self.current[call.key]
        if cancel:
            self.line.cancel(call.uuid, call.call_id)

    def _drop_what_airflow_gave_up(self) -> None:
        """The scheduler takes a task whose heartbeat stopped out of `running` by itself; its call ends then."""
        for key, uuid in list(self.current.items()):
            if key not in self.running:
                self._drop(self.calls[uuid], cancel=True)

    # Tasks that are taken back, taken over, looked into.

    def revoke_task(self, *, ti) -> None:
        """Takes a task back that has been queued for too long."""
        try:
            self.queued_tasks.pop(ti.key, None)
            self.running.discard(ti.key)
            self.event_buffer.pop(ti.key, None)
            call = self.calls.get(self.current.get(ti.key, ""))
            if call is not None:
                self._drop(call, cancel=True)
            elif _is_call_id(ti.external_executor_id):
                self.line.cancel(str(uuid4()), ti.external_executor_id)
        except Exception:
            self.log.exception("Cannot revoke %s", ti)

    def cleanup_stuck_queued_tasks(self, tis) -> list[str]:
        """Airflow 2: the same for many, by a scheduler that fails them."""
        for ti in tis:
            self.revoke_task(ti=ti)
        return [repr(ti) for ti in tis]

    def try_adopt_task_instances(self, tis: Sequence) -> Sequence:
        """Takes over the calls of a scheduler that is gone. One whose id was never stored can't be found: not taken."""
        with _stats.timer("modal_executor.adopt_task_instances.duration"):
            return self._adopt(tis)

    def _adopt(self, tis: Sequence) -> Sequence:
        foreign = []
        for ti in tis:
            if not _is_call_id(ti.external_executor_id):
                foreign.append(ti)
                continue
            call = Call(uuid=str(uuid4()), key=ti.key, payload="", call_id=ti.external_executor_id)
            self.calls[call.uuid] = call
            self.current[call.key] = call.uuid
            self.running.add(ti.key)
            self.line.follow(call.uuid, call.call_id)
        if len(foreign) < len(tis):
            self.log.info("Adopted %d calls on Modal", len(tis) - len(foreign))
        return foreign

    def get_task_log(self, ti, try_number: int) -> tuple[list[str], list[str]]:
        """What a running task has printed so far, from Modal."""
        call_id = ti.external_executor_id
        if not _is_call_id(call_id) or ti.try_number != try_number:
            return [], []
        if not self._is_started:
            # A process that only reads logs.
            allow_forks()
        try:
            lines = self.line.logs(call_id)
        except Exception as error:
            return [f"Could not read the log of call {call_id} from Modal: {error}"], []
        return [f"Read from Modal, call {call_id}"], ["\n".join(lines)]

    @staticmethod
    def get_cli_commands() -> list:
        from modalflow.cli import commands

        return commands()


def _uuid(assigned: str | None, taken) -> str:
    """The id that the scheduler committed with the task's queuing, when it did: repeated, it starts nothing twice."""
    try:
        uuid = str(UUID(assigned or ""))
    except ValueError:
        return str(uuid4())
    return str(uuid4()) if uuid in taken else uuid


def _is_call_id(text: str | None) -> bool:
    return bool(text) and text.startswith(CALL_ID_PREFIX)


def _has_left(result: str) -> bool:
    try:
        return bool(json.loads(result).get("left"))
    except (ValueError, AttributeError):
        return False


def _exit_code(result: str) -> int | None:
    try:
        return int(json.loads(result)["exit_code"])
    except (ValueError, KeyError, TypeError):
        return None

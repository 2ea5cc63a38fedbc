"""A warm Python process that forks one child for each task, on request of the supervisor.

It talks over a SOCK_SEQPACKET socket that it finds as its standard input: one JSON object a packet, file descriptors beside it.
It imports what tasks need once, stays single-threaded, runs no user code itself, reaps its children and reports each end at once.
When the socket closes, the supervisor is gone: all children are killed.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from typing import Any, NoReturn

import task_protocol

PACKET_LIMIT = 1 << 20
PR_SET_PDEATHSIG = 1

WARM_MODULES = (
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.bundles.manager",
    "airflow.dag_processing.dagbag",
    "airflow.executors.base_executor",
    "airflow.executors.workloads",
    "airflow.sdk",
    "airflow.sdk.definitions.mappedoperator",
    "airflow.sdk.execution_time.lazy_sequence",
    "airflow.sdk.execution_time.timeout",
    "airflow.sdk.serde",
    "airflow.providers.standard.decorators.bash",
    "airflow.providers.standard.decorators.branch_python",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.decorators.sensor",
    "airflow.providers.standard.decorators.short_circuit",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.branch",
    "airflow.providers.standard.operators.datetime",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.latest_only",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.bash",
    "airflow.providers.standard.sensors.date_time",
    "airflow.providers.standard.sensors.external_task",
    "airflow.providers.standard.sensors.filesystem",
    "airflow.providers.standard.sensors.python",
    "airflow.providers.standard.sensors.time_delta",
    "jinja2",
    "jinja2.nativetypes",
    "jinja2.sandbox",
    "pendulum",
    "psutil",
    "setproctitle",
)
"""Imported before the first fork. One that is not installed is left out: a task then imports what it needs itself."""


class ForkServer:
    """The loop of the warm process: forks on request, reaps on SIGCHLD."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.children: dict[int, int] = {}
        self.wakeup, self.wakeup_writer = socket.socketpair()
        self.wakeup.setblocking(False)
        self.wakeup_writer.setblocking(False)
        self.set_parent_death_signal = _parent_death_signal_setter()

    def run(self) -> None:
        """Serve until the supervisor closes its end."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wakeup_writer.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self.wakeup.fileno() in ready:
                with suppress(BlockingIOError):
                    while self.wakeup.recv(4096):
                        pass
                self.reap()
            if self.control.fileno() in ready and not self.serve_one():
                self.kill_children()
                return

    def serve_one(self) -> bool:
        """Take one request; False when the supervisor is gone."""
        try:
            packet, fds, _, _ = socket.recv_fds(self.control, PACKET_LIMIT, 8, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        try:
            pid = os.fork()
        except OSError as error:
            self.send({"event": "refused", "id": request["id"], "error": f"fork: {error.strerror}"})
            pid = -1
        if pid == 0:
            self.be_child(request, fds)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            with suppress(OSError):
                os.setpgid(pid, pid)
            self.children[pid] = request["id"]
            self.send({"event": "started", "id": request["id"], "pid": pid})
        return True

    def be_child(self, request: dict[str, Any], fds: list[int]) -> NoReturn:
        """In the new process: leave nothing of the fork server's behind, then become the task."""
        try:
            with suppress(OSError):
                os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            server = os.getppid()
            self.set_parent_death_signal()
            if os.getppid() != server:
                os._exit(124)
            for end in (self.control, self.wakeup, self.wakeup_writer):
                end.close()
            gc.enable()
            if request.get("changes"):
                change_environment(fds.pop())
            if request["kind"] == "airflow":
                code = task_protocol.supervise(request["workload"])
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            requests, stdout, stderr = (socket.socket(fileno=fd) for fd in fds[:3])
            if request["kind"] == "callback":
                task_protocol.run_callback(requests, stdout, stderr, fds[3], request["runs"])
            task_protocol.run_task(requests, stdout, stderr, fds[3])
        except BaseException:
            with suppress(BaseException):
                traceback.print_exc()
                sys.stderr.flush()
        finally:
            os._exit(1 if request["kind"] == "airflow" else 124)

    def reap(self) -> None:
        """Report every child that ended since the last call."""
        while self.children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (task := self.children.pop(pid, None)) is None:
                continue
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            self.send(
                {
                    "event": "exited",
                    "id": task,
                    "code": code,
                    "max_rss_kib": usage.ru_maxrss,
                    "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 6),
                }
            )

    def kill_children(self) -> None:
        """Kill each child's whole process group: their supervisor is gone, nobody reads what they would say."""
        for pid in self.children:
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    def send(self, message: dict[str, Any]) -> None:
        """Tell the supervisor; when it is gone the next read notices."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.control.sendall(json.dumps(message).encode())


def change_environment(fd: int) -> None:
    """Make this process's environment that of the container it is in. Others read the same file: its position is theirs too."""
    changes = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _parent_death_signal_setter() -> Any:
    """A function for the child that makes the kernel kill it when this process dies; does nothing outside Linux."""
    if sys.platform != "linux":
        return lambda: None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def warm(private: bool) -> list[str]:
    """Import what tasks use; name the modules that are not there."""
    from importlib import import_module

    missing = []
    for name in WARM_MODULES:
        try:
            import_module(name)
        except ImportError as error:
            missing.append(f"{name}: {error}")
    if private:
        task_protocol.warm()
    rehearse()
    from airflow.settings import dispose_orm

    dispose_orm(do_log=False)
    return missing


def rehearse() -> None:
    """Define a small DAG and forget it: what Airflow, Jinja and pydantic build at first use is then built for every task."""
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG, task

    with DAG("rehearsal", schedule=None) as dag:

        @task
        def produce() -> int:
            return 1

        @task
        def consume(value: int) -> int:
            return value

        consume.expand(value=[produce(), produce()])
        BashOperator(task_id="shell", bash_command="true")
    dag.get_template_env().from_string("{{ value }}").render(value=1)


def main() -> int:
    """Warm up, say so, serve. The argument says who supervises: `airflow` needs no private names."""
    private = sys.argv[1:] != ["airflow"]
    control = socket.socket(fileno=os.dup(0))
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(2, 1)
    os.close(devnull)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = ForkServer(control)
    gc.disable()
    try:
        sdk = task_protocol.check()["sdk"] if private else task_protocol.sdk_version()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missing = warm(private)
    except Exception as error:
        traceback.print_exc()
        server.send({"event": "unusable", "error": f"{type(error).__name__}: {error}"})
        return 1
    gc.collect()
    gc.freeze()
    threads = threading.active_count()
    server.send({"event": "ready", "pid": os.getpid(), "sdk": sdk, "threads": threads, "missing": missing})
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

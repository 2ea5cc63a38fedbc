"""Parses DAG files, each in a forked child: nobody but this process and its children imports a user's code.

Started by the host with a cleared environment, under Landlock, with a private socket as its stdin. The host sends
frames `!II` (bytes of the header, bytes of the body), header (JSON), body (raw); answers have the same form:

    -> {"op": "start", "scratch", "preload", "parallel", "memory"}      <- {"event": "ready", ...}
    -> {"op": "parse", "id", "path", "root", "timeout"}
    <- {"event": "ask", "id", "kind", "key"}       -> {"op": "answer", "id", ...}
    <- {"event": "done", "id", "end", "stdout", "stderr", "seconds"} + what the child wrote, unread

It holds no secret and reads nothing that a child says: a child's bytes are handed to the host, which trusts none of
them. It stays single-threaded, because it forks.
"""

import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time

from modalflow_frames import receive
from modalflow_job import Job, sweep
from modalflow_walls import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, landlock_scopes, prctl

# A folder that is run comes first on the path; what DAG files import is found without it.
sys.path.pop(0)


def main():
    link = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # The end comes by the socket, so that no child outlives us.
    header, _ = receive(link)
    raise_walls()
    missing = warm_up(header["preload"], header["scratch"])
    Parser(link, header, missing).run()


def raise_walls():
    """What the host cannot do for us before exec."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_DUMPABLE, 0)


WARM_UP = """
import datetime

from airflow.sdk import DAG, task

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:
    EmptyOperator = None
with DAG("modalflow_warm_up", schedule="@daily", start_date=datetime.datetime(2024, 1, 1), tags=["a"], params={"a": 1}):
    if EmptyOperator:
        EmptyOperator(task_id="empty", retries=1)
    task(lambda x: x, task_id="mapped").expand(x=task(lambda: [1], task_id="plain")())
"""


def warm_up(preload, scratch):
    """Imports what nearly every DAG file imports, and runs the whole way once, so that children find it in memory."""
    import importlib

    missing = []
    from airflow.dag_processing import processor
    from airflow.sdk.execution_time.supervisor import block_orm_access

    for name in preload:
        try:
            importlib.import_module(name)
        except Exception as error:
            missing.append(f"{name}: {error}")
    block_orm_access()
    path, modules = list(sys.path), set(sys.modules)
    file = os.path.join(scratch, "warm_up.py")
    with open(file, "w") as out:
        out.write(WARM_UP)
    import structlog

    request = processor.DagFileParseRequest(file=file, bundle_path=scratch, bundle_name="dags-folder")
    result = processor._parse_file(request, structlog.get_logger("dag_parser"))
    if result is None or result.import_errors:
        raise RuntimeError(f"Airflow does not parse the simplest DAG: {result}")
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("unusual_prefix_"):
            del sys.modules[name]
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # python_importer takes it.
    lose_no_exception(processor)
    gc.collect()
    gc.freeze()
    return missing


def lose_no_exception(processor):
    """Airflow logs what goes wrong around an import (an exception whose text raises another one), and forgets it."""
    import traceback

    class Bag(processor.BundleDagBag):
        def process_file(self, filepath, *args, **kwargs):
            try:
                return super().process_file(filepath, *args, **kwargs)
            except Exception:
                self.import_errors[self._get_relative_fileloc(filepath)] = traceback.format_exc(limit=-3)
                return []

    processor.BundleDagBag = Bag


class Parser:
    """The loop: takes requests, keeps at most `parallel` children, reports each one's end."""

    def __init__(self, link, header, missing):
        self.link = link
        self.incoming = bytearray()
        self.scratch = header["scratch"]
        self.parallel = header["parallel"]
        self.memory = header["memory"]
        self.slots = set(range(self.parallel))
        self.waiting = []
        self.jobs = {}
        import airflow

        self.tell({
            "event": "ready",
            "python": sys.version.split()[0],
            "airflow": airflow.__version__,
            "scoped": landlock_scopes(),
            "missing": missing,
        })
        link.setblocking(False)

    def run(self):
        while True:
            while self.waiting and len(self.jobs) < self.parallel:
                job = Job(self, self.waiting.pop(0))
                self.jobs[job.id] = job
            poll = select.poll()
            poll.register(self.link, select.POLLIN)
            owners = {}
            for job in self.jobs.values():
                for descriptor in job.descriptors():
                    poll.register(descriptor, select.POLLIN)
                    owners[descriptor] = job
            now = time.monotonic()
            wait = min((job.deadline - now for job in self.jobs.values()), default=None)
            for descriptor, _ in poll.poll(None if wait is None else max(0, int(wait * 1000) + 1)):
                if descriptor == self.link.fileno():
                    self.read_requests()
                elif descriptor in owners:
                    owners[descriptor].read(descriptor)
            now = time.monotonic()
            for job in list(self.jobs.values()):
                if job.is_over(now):
                    del self.jobs[job.id]
                    self.tell(*job.close())

    def read_requests(self):
        try:
            data = self.link.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.leave()
        self.incoming += data
        while len(self.incoming) >= 8:
            header_bytes, body_bytes = struct.unpack_from("!II", self.incoming)
            if len(self.incoming) < 8 + header_bytes + body_bytes:
                return
            header = json.loads(self.incoming[8 : 8 + header_bytes])
            del self.incoming[: 8 + header_bytes + body_bytes]
            if header["op"] == "parse":
                self.waiting.append(header)
            elif header["op"] == "answer" and header["id"] in self.jobs:
                self.jobs[header["id"]].answer(header)

    def leave(self):
        """The host is gone or has no more use for us."""
        for job in self.jobs.values():
            job.kill()
        sweep(set())
        os._exit(0)

    def tell(self, header, body=b""):
        head = json.dumps(header).encode()
        self.link.setblocking(True)
        try:
            self.link.sendall(struct.pack("!II", len(head), len(body)) + head + body)
        except OSError:
            self.leave()
        self.link.setblocking(False)


if __name__ == "__main__":
    main()

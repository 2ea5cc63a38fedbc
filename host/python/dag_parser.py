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

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 1, 4, 8, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
CAP_DAC_READ_SEARCH = 2
CLONE_NEWUSER = 0x10000000

FIRST_USER = 0x6D6F0000  # of those that children are when we are root; nobody has such numbers
PROCESSES = 128  # and threads of one child

RESULT_BYTES = 32 << 20  # of one child's result
QUESTION_BYTES = 16 << 10  # of a question for a Variable or a Connection
OUTPUT_BYTES = 32 << 10  # kept of each end of stdout and stderr
TEXT_BYTES = 64 << 10  # of one error text
INPUTS = 500  # files that a DAG file may be said to depend on


# ---------------------------------------------------------------- the warm process


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


class Job:
    """One child and what comes out of it."""

    def __init__(self, parser, request):
        self.parser = parser
        self.id = request["id"]
        self.slot = parser.slots.pop()
        self.scratch = os.path.join(parser.scratch, f"file-{self.id}")
        os.makedirs(self.scratch, mode=0o700, exist_ok=True)
        # Root may do too much: no limit of processes holds for it, and it may write whatever Landlock forgot.
        user = FIRST_USER + self.slot if os.getuid() == 0 and has_other_users(FIRST_USER + self.slot) else None
        if user is not None:
            os.chown(self.scratch, user, user)
        self.channel, theirs = socket.socketpair()
        out, out_theirs = os.pipe()
        err, err_theirs = os.pipe()
        self.output = {out: Ends(), err: Ends()}
        self.out, self.err = out, err
        self.received = bytearray()
        self.refused = None
        self.complete = False
        self.timed_out = False
        self.started = time.monotonic()
        self.deadline = self.started + request["timeout"]
        self.pid = os.fork()
        if self.pid == 0:
            child(request, (theirs, out_theirs, err_theirs), self.scratch, parser.memory, user)
        theirs.close()
        os.close(out_theirs)
        os.close(err_theirs)
        self.channel.setblocking(False)
        self.process = os.pidfd_open(self.pid)
        self.open = {self.channel.fileno(), out, err}
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)

    def descriptors(self):
        return [*self.open, self.process]

    def read(self, descriptor):
        if descriptor == self.process:
            self.complete = True
            return
        try:
            data = os.read(descriptor, 1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.open.discard(descriptor)
        elif descriptor in self.output:
            self.output[descriptor].add(data)
        else:
            self.received += data
            self.look_at_frames()

    def look_at_frames(self):
        """A child's frames: `!cI` (R for the result, ? for a question) and that many bytes."""
        while len(self.received) >= 5 and not self.complete:
            kind, size = struct.unpack_from("!cI", self.received)
            limit = {b"R": RESULT_BYTES, b"?": QUESTION_BYTES}.get(kind)
            if limit is None:
                self.refused = "garbage"
            elif size > limit:
                self.refused = "too large"
            if self.refused:
                self.complete = True
                return
            if len(self.received) < 5 + size:
                return
            if kind == b"R":
                self.complete = True
                return
            question = bytes(self.received[5 : 5 + size])
            del self.received[: 5 + size]
            self.parser.tell({"event": "ask", "id": self.id}, question)

    def answer(self, header):
        data = json.dumps(header).encode()
        try:
            self.channel.sendall(struct.pack("!I", len(data)) + data)
        except OSError:
            pass  # It no longer listens: its own trouble.

    def is_over(self, now):
        self.timed_out = not self.complete and now >= self.deadline
        return self.complete or self.timed_out

    def kill(self):
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

    def close(self):
        # What was written before the end counts, even by a child that has died since.
        for descriptor in list(self.open):
            for _ in range(256):
                before = len(self.received), descriptor in self.open
                self.read_now(descriptor)
                if descriptor not in self.open or (len(self.received), True) == before:
                    break
        seconds = time.monotonic() - self.started
        own_end = self.own_end()
        self.kill()
        _, status, usage = os.wait4(self.pid, 0)
        sweep({job.pid for job in self.parser.jobs.values()})
        self.channel.close()
        for descriptor in (self.out, self.err, self.process):
            os.close(descriptor)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.parser.slots.add(self.slot)
        end, body = self.verdict(own_end)
        return {
            "event": "done",
            "id": self.id,
            "end": end,
            "stdout": self.output[self.out].text(),
            "stderr": self.output[self.err].text(),
            "seconds": round(seconds, 4),
            "cpu": round(usage.ru_utime + usage.ru_stime, 4),
            "memory": usage.ru_maxrss << 10,
        }, body

    def read_now(self, descriptor):
        try:
            data = os.read(descriptor, 1 << 18)
        except OSError:
            data = b""
        if not data:
            self.open.discard(descriptor)
        elif descriptor in self.output:
            self.output[descriptor].add(data)
        elif len(self.received) <= RESULT_BYTES + 5:
            self.received += data

    def own_end(self):
        """How the child ended if it did so by itself; asked before we kill it."""
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return None
        if ended is None:
            return None
        if ended.si_code == os.CLD_EXITED:
            return {"kind": "exit", "code": ended.si_status}
        return {"kind": "signal", "signal": ended.si_status}

    def verdict(self, own_end):
        if self.timed_out:
            return {"kind": "timeout"}, b""
        if self.refused:
            return {"kind": self.refused}, b""
        if len(self.received) >= 5:
            kind, size = struct.unpack_from("!cI", self.received)
            if kind == b"R" and size <= RESULT_BYTES and len(self.received) >= 5 + size:
                return {"kind": "result"}, bytes(self.received[5 : 5 + size])
        return own_end or {"kind": "garbage"}, b""


class Ends:
    """The first and the last bytes of a stream, and how much there was between."""

    def __init__(self):
        self.head, self.tail, self.total = bytearray(), bytearray(), 0

    def add(self, data):
        self.total += len(data)
        room = OUTPUT_BYTES - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        del self.tail[:-OUTPUT_BYTES]

    def text(self):
        between = self.total - len(self.head) - len(self.tail)
        cut = f"\n... ({between} bytes left out) ...\n".encode() if between else b""
        return bytes(self.head + cut + self.tail).decode(errors="replace")


def sweep(spare):
    """Ends what children left behind: the orphans are ours, since we are their subreaper."""
    limit = time.monotonic() + 2
    while time.monotonic() < limit:
        orphans = [pid for pid in children() if pid not in spare]
        if not orphans:
            return
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        for pid in orphans:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        time.sleep(0.001)


def children():
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        pass
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == me:
                        found.append(int(name))
            except (OSError, ValueError, IndexError):
                pass
    return found


def has_other_users(user):
    """In a user namespace root may be the only user there is."""
    try:
        with open("/proc/self/uid_map") as file:
            ranges = [[int(number) for number in line.split()] for line in file]
    except OSError:
        return True
    return any(first <= user < first + count for first, _, count in ranges)


def processes_of_this_user():
    """RLIMIT_NPROC counts all threads of a user, not only those of a child."""
    me, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/status") as file:
                    lines = dict(line.split(":", 1) for line in file if ":" in line)
                if int(lines["Uid"].split()[0]) == me:
                    count += int(lines["Threads"])
            except (OSError, KeyError, ValueError):
                pass
    return count


# ---------------------------------------------------------------- the child


def child(request, streams, scratch, memory, user):
    """Never returns."""
    try:
        os.setsid()
        isolate(*streams)
        limit(request["timeout"], memory, drop_privileges(user))
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        leave_the_domain(scratch)
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        os.chdir(request["root"])
        import tempfile

        tempfile.tempdir = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        gc.set_threshold(50_000, 20, 20)  # A child lives for milliseconds: a few more megabytes are cheaper.
        watch_for_crashes(request["timeout"])
        result = parse(request)
        data = json.dumps(result, allow_nan=False).encode()
    except BaseException:  # Also MemoryError, and what sys.exit in a thread or a broken __eq__ may throw at us.
        import traceback

        data = json.dumps({"broken": cut(traceback.format_exc(limit=-6))}).encode()
    try:
        with socket.socket(fileno=3) as channel:
            channel.sendall(struct.pack("!cI", b"R", len(data)) + data)
    finally:
        os._exit(0)


def isolate(channel, out, err):
    """Descriptors 0 to 3 and no others; 3, ours to answer on, is not handed to what the file starts."""
    null = os.open("/dev/null", os.O_RDONLY)
    wanted = [os.dup(fd) for fd in (null, out, err, channel.fileno())]
    # The copies may lie on 0 to 3 themselves: lift them out of the way first.
    import fcntl

    wanted = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in wanted]
    for target, fd in enumerate(wanted):
        os.dup2(fd, target, inheritable=target < 3)
    channel.detach()
    os.closerange(4, 4096)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def drop_privileges(user):
    """Answers how many processes there may be. Each child is counted by itself, so that the bomb of one does not keep
    another from starting a thread: by a user of its own if we are root, else by a user namespace of its own."""
    if user is not None:
        for capability in range(64):
            if capability != CAP_DAC_READ_SEARCH and LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                break
        prctl(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        # The DAG folder is root's. What may be read of all files is Landlock's to say.
        set_capabilities(1 << CAP_DAC_READ_SEARCH)
        LIBC.prctl(PR_CAP_AMBIENT, 2, CAP_DAC_READ_SEARCH, 0, 0)
        prctl(PR_SET_DUMPABLE, 0)
    elif LIBC.unshare(CLONE_NEWUSER) == 0:
        set_capabilities(0)
    else:
        return PROCESSES + processes_of_this_user()
    return PROCESSES


def set_capabilities(mask):
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if LIBC.capset(version, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def limit(timeout, memory, processes):
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    seconds = (int(timeout) + 1) * (os.cpu_count() or 1) + 1
    limits = [
        (resource.RLIMIT_AS, mapped + memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, 64 << 20),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ]
    for name, value in limits:
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def watch_for_crashes(timeout):
    """A crash, and a file that runs into its limit, say on stderr where they were."""
    import faulthandler

    from airflow.dag_processing.importers import python_importer

    faulthandler.enable(file=2)
    with contextlib.suppress(RuntimeError):  # No thread to be had.
        faulthandler.dump_traceback_later(max(timeout - 0.25, timeout * 0.8), file=2)

    class Signals:
        """Airflow answers SIGSEGV with a Python function, which can never run: the crash would spin until the limit."""

        def __getattr__(self, name):
            return getattr(signal, name)

        def signal(self, number, handler):
            return None if number == signal.SIGSEGV else signal.signal(number, handler)

    python_importer.signal = Signals()


def parse(request):
    """airflow: dag_processing.processor._parse_file, and what the file read to get there."""
    import warnings

    import structlog

    from airflow.dag_processing import processor
    from airflow.sdk.execution_time import task_runner

    said = []
    warnings.showwarning = lambda message, category, *where, **_: said.append(str(message))
    sys.path.append(request["root"])
    before = set(sys.modules)
    opened = watch_opens(request["root"])
    task_runner.SUPERVISOR_COMMS = Host(request["root"])
    message = processor.DagFileParseRequest(
        file=request["path"], bundle_path=request["root"], bundle_name="dags-folder"
    )
    result = processor._parse_file(message, structlog.get_logger("dag_parser"))
    errors = dict(result.import_errors or {})
    weights = {}
    for dag in result.serialized_dags:
        try:
            rehearse(dag.data)
            weights[dag.dag_id] = custom_weights(dag.data)
        except Exception as error:
            errors[request["path"]] = f"the DAG {dag.dag_id}: {told(error)}"
    modules = sorted(set(sys.modules) - before)
    for name in modules:
        where = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(where, str):
            opened[where] = None
    own = request["root"] + os.sep
    inputs = [path for path in opened if path != request["path"] and path.startswith(own)]
    return {
        "dags": [dag.data for dag in result.serialized_dags],
        "errors": {name: cut(text) for name, text in errors.items()},
        "weights": {dag_id: found for dag_id, found in weights.items() if found},
        "dag_warnings": result.warnings or [],
        "warnings": [cut(text, 2000) for text in said[:50]],
        "inputs": inputs[:INPUTS],
        "modules": [name for name in modules if not name.startswith("unusual_prefix_")][:2000],
    }


def rehearse(data):
    """Asks a timetable of the user's own once, here: one that hangs or crashes costs its file, not the process that
    writes all files. One that raises may have its reasons, as that it needs the database; it is asked again there."""
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.serialized_objects import DagSerialization

    encoded = data["dag"]["timetable"]
    if "airflow.timetables.assets" not in encoded["__type"] and encoded["__type"].startswith("airflow.timetables."):
        return
    import datetime

    from airflow._shared.timezones import timezone

    now = timezone.coerce_datetime(datetime.datetime.now(datetime.timezone.utc))
    with contextlib.suppress(Exception):
        restriction = DagSerialization.from_dict(data)._time_restriction
        timetable = decode_timetable(encoded)
        with contextlib.suppress(Exception):
            timetable.infer_manual_data_interval(run_after=now)
        timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)


BUILT_IN_WEIGHTS = ("downstream", "upstream", "absolute")


def custom_weights(data):
    """The weight of each task whose rule is a class of the user's own. airflow: TaskInstance.insert_mapping"""
    if all(rule in BUILT_IN_WEIGHTS for task in data["dag"]["tasks"] for rule in weight_rules(task)):
        return {}
    import uuid

    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.serialized_objects import DagSerialization

    weights = {}
    for task_id, task in DagSerialization.from_dict(data).task_dict.items():
        # Of a mapped task Airflow stores the rule's repr; the host refuses it.
        rule = None if hasattr(task, "partial_kwargs") else task.weight_rule
        # Built-in rules are words, or strategies of Airflow's own module; those the host computes itself.
        if hasattr(rule, "get_weight") and type(rule).__module__ != "airflow.task.priority_strategy":
            ti = TaskInstance(task=task, run_id="", map_index=-1, dag_version_id=uuid.UUID(int=0))
            weight = rule.get_weight(ti)
            if not isinstance(weight, int) or not -(2**31) <= weight < 2**31:
                raise ValueError(f"the weight rule of task {task_id!r} gave {weight!r}, which is no 32-bit integer")
            weights[task_id] = int(weight)
    return weights


def weight_rules(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "weight_rule" and isinstance(inner, str):
                yield inner
            else:
                yield from weight_rules(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from weight_rules(inner)


def told(error):
    import traceback

    lines = traceback.format_tb(error.__traceback__)[-4:] + traceback.format_exception_only(error)
    return "".join(lines).rstrip()


def watch_opens(folder):
    """Files and folders below `folder` that are read while parsing: when one changes, the DAG may change."""
    opened = {}

    def hook(event, arguments):
        if event in ("open", "os.listdir", "os.scandir") and len(opened) < INPUTS:
            path = arguments[0]
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, str):
                path = os.path.abspath(path)
                if path.startswith(folder + os.sep):
                    opened.setdefault(path)

    sys.addaudithook(hook)
    return opened


class Host:
    """Stands where Airflow has its supervisor: answers Variables and Connections that a file asks for while parsing."""

    def __init__(self, root):
        self.root = root

    def send(self, message):
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import comms

        kind = type(message).__name__
        if kind == "MaskSecret":
            return None
        if kind == "GetVariable":
            answer = self.ask("variable", message.key)
            missing = comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": message.key})
            found = lambda value: comms.VariableResult(key=message.key, value=value)  # noqa: E731
        elif kind == "GetConnection":
            answer = self.ask("connection", message.conn_id)
            missing = comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": message.conn_id})
            fields = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
            found = lambda value: comms.ConnectionResult(**{**fields, **value})  # noqa: E731
        else:
            self.refuse(f"{kind} is not answered while a DAG file is parsed", "do it inside a task")
        if "refused" in answer:
            self.refuse(answer["refused"], answer["hint"])
        return missing if answer["value"] is None else found(answer["value"])

    async def asend(self, message):
        return self.send(message)

    def ask(self, kind, key):
        data = json.dumps({"kind": kind, "key": key}).encode()
        with socket.socket(fileno=os.dup(3)) as channel:
            channel.sendall(struct.pack("!cI", b"?", len(data)) + data)
            (size,) = struct.unpack("!I", exactly(channel, 4))
            return json.loads(exactly(channel, size))

    def refuse(self, what, hint):
        # The one exception that Airflow's chain of secrets backends does not swallow.
        from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

        frame = sys._getframe()
        while frame and not frame.f_code.co_filename.startswith(self.root + os.sep):
            frame = frame.f_back
        where = f" ({os.path.relpath(frame.f_code.co_filename, self.root)}, line {frame.f_lineno})" if frame else ""
        raise AirflowSecretsBackendAccessDenied(f"{what}{where}\nhint: {hint}") from None


# ---------------------------------------------------------------- small things


def cut(text, size=TEXT_BYTES):
    """At most about `size` bytes of clean UTF-8; what is left out is said."""
    data = str(text).encode(errors="backslashreplace")
    if len(data) > size:
        head, tail = data[: size // 4], data[-(size * 3 // 4) :]
        data = head + f"\n... ({len(data) - len(head) - len(tail)} bytes left out) ...\n".encode() + tail
    return data.decode(errors="replace")


def exactly(link, size):
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def receive(link):
    header_bytes, body_bytes = struct.unpack("!II", exactly(link, 8))
    return json.loads(exactly(link, header_bytes)), exactly(link, body_bytes)


def prctl(option, value):
    if LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def landlock_scopes():
    """Whether this kernel can keep a child's signals inside (Landlock ABI 6)."""
    return LIBC.syscall(444, None, ctypes.c_size_t(0), 1) >= 6


def leave_the_domain(scratch):
    """A Landlock domain of its own: a child cannot signal or trace the warm process or another file's child, and it
    writes to its own scratch directory only."""
    if not landlock_scopes():
        return
    write, truncate = 1 << 1, 1 << 14
    writes = write | truncate | 0x3FF0  # remove, make, rename
    attributes = (ctypes.c_uint64 * 3)(writes, 0, 3)  # nothing of the net; abstract sockets, signals
    ruleset = LIBC.syscall(444, ctypes.byref(attributes), ctypes.c_size_t(24), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path, access in ((scratch, writes), ("/dev/null", write | truncate)):
        place = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, place))
        if LIBC.syscall(445, ruleset, 1, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
        os.close(place)
    if LIBC.syscall(446, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


if __name__ == "__main__":
    main()

"""One DAG file, in the child that was forked for it: imported by Airflow's own code, its DAGs serialized, its questions asked.

Nobody reads what it answers but the host, which trusts none of it.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import sys

from modalflow_frames import exactly
from modalflow_walls import PR_SET_PDEATHSIG, drop_privileges, isolate, leave_the_domain, limit, prctl

TEXT_BYTES = 64 << 10  # of one error text
INPUTS = 500  # files that a DAG file may be said to depend on


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


def cut(text, size=TEXT_BYTES):
    """At most about `size` bytes of clean UTF-8; what is left out is said."""
    data = str(text).encode(errors="backslashreplace")
    if len(data) > size:
        head, tail = data[: size // 4], data[-(size * 3 // 4) :]
        data = head + f"\n... ({len(data) - len(head) - len(tail)} bytes left out) ...\n".encode() + tail
    return data.decode(errors="replace")

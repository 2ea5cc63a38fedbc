"""Every name of Airflow's that is private and that modalflow uses, in this one file.

Airflow promises nothing about these names: `check()` compares them with what this file was written for and says what to do when
they moved. No other Python file of modalflow imports a private name of Airflow's.
"""

from __future__ import annotations

import inspect
import os
import socket
import sys
from typing import Any, NoReturn

PINNED_SDK = "1.3.2"
"""The version of apache-airflow-task-sdk that the names below were read in."""

SUPERVISOR_SCHEMA = "2026-06-16"
"""The version of the messages between supervisor and task runner (`airflow/sdk/execution_time/schema`)."""

EXECUTION_API = "2026-06-30"
"""The version of the Execution API that this SDK was generated from."""

_FORK_MAIN_PARAMETERS = ["requests", "child_stdout", "child_stderr", "log_fd", "target"]


class ProtocolChanged(RuntimeError):
    """The installed Task SDK is not the one that modalflow's supervisor was written for."""


def sdk_version() -> str:
    """The version of the installed Task SDK."""
    from importlib.metadata import version

    return version("apache-airflow-task-sdk")


def check() -> dict[str, Any]:
    """Raise `ProtocolChanged` unless the installed Task SDK has all names and versions used here; describe it otherwise."""
    found = sdk_version()
    problems = [] if found == PINNED_SDK else [f"apache-airflow-task-sdk is {found}, modalflow was written for {PINNED_SDK}"]

    import json
    from importlib.resources import files

    from airflow.sdk.api.datamodels._generated import API_VERSION
    from airflow.dag_processing import processor
    from airflow.sdk.execution_time import callback_supervisor, comms, schema, supervisor, task_runner

    for module, name in (
        (supervisor, "_fork_main"),
        (supervisor, "_subprocess_main"),
        (task_runner, "main"),
        (task_runner, "TypeAdapter"),
        (comms, "ToTask"),
        (comms, "ToSupervisor"),
        (comms, "TypeAdapter"),
        (comms, "_RequestFrame"),
        (comms, "_ResponseFrame"),
        (comms, "CommsDecoder"),
        (callback_supervisor, "execute_callback"),
        (processor, "_parse_file_entrypoint"),
        (processor, "DagFileParseRequest"),
    ):
        if not hasattr(module, name):
            problems.append(f"{module.__name__}.{name} is gone")
    if not problems:
        parameters = list(inspect.signature(supervisor._fork_main).parameters)
        if parameters != _FORK_MAIN_PARAMETERS:
            problems.append(f"supervisor._fork_main takes {parameters}, expected {_FORK_MAIN_PARAMETERS}")
        for frame, fields in ((comms._RequestFrame, ("id", "body", "context_carrier")), (comms._ResponseFrame, ("id", "body", "error"))):
            if frame.__struct_fields__ != fields:
                problems.append(f"comms.{frame.__name__} has the fields {frame.__struct_fields__}, expected {fields}")
    written_for = json.loads(files(schema).joinpath("schema.json").read_text())["api_version"]
    if written_for != SUPERVISOR_SCHEMA:
        problems.append(f"the supervisor schema is {written_for}, expected {SUPERVISOR_SCHEMA}")
    if API_VERSION != EXECUTION_API:
        problems.append(f"the Execution API of the SDK is {API_VERSION}, expected {EXECUTION_API}")
    if problems:
        raise ProtocolChanged(
            "the installed Airflow Task SDK does not fit: " + "; ".join(problems) + "\n"
            f"hint: install apache-airflow-task-sdk=={PINNED_SDK}, or set worker.supervisor to `airflow`, which uses public names alone"
        )
    return {"sdk": found, "schema": written_for, "execution_api": API_VERSION, "to_supervisor": message_types()}


def message_types() -> list[str]:
    """The `type` of each message that a task runner may send to its supervisor."""
    from typing import get_args

    from airflow.sdk.execution_time.comms import ToSupervisor

    union, *_ = get_args(ToSupervisor)
    return sorted(model.__name__ for model in get_args(union))


def warm() -> None:
    """Import and build, before any fork, what each task would otherwise import and build after its fork."""
    from pydantic import JsonValue

    from airflow.sdk.execution_time import comms, task_runner

    # A task builds these adapters for its comms and for each template field; together a third of what an empty task costs.
    original = comms.TypeAdapter
    adapters = {id(kind): original(kind) for kind in (comms.ToTask, JsonValue)}

    def adapter(kind: Any, *args: Any, **kwargs: Any) -> Any:
        return adapters.get(id(kind)) or original(kind, *args, **kwargs)

    comms.TypeAdapter = task_runner.TypeAdapter = adapter

    # What is looked up once a process, at first use: listeners, the remote log handler (there is none), log processors.
    from airflow.sdk.listener import get_listener_manager
    from airflow.sdk.log import load_remote_log_handler, logging_processors

    get_listener_manager()
    load_remote_log_handler()
    logging_processors(json_output=True)


def run_task(requests: Any, stdout: Any, stderr: Any, log_fd: int) -> NoReturn:
    """Be the task runner in this freshly forked process: talk over `requests`, never return."""
    from airflow.sdk.execution_time import supervisor

    def begin() -> None:
        # A child is forked ahead of its task. It logs nothing, and nothing of it is the task's, before the start details are there.
        with socket.socket(fileno=os.dup(0)) as start:
            if not start.recv(1, socket.MSG_PEEK):
                os._exit(0)
        supervisor._subprocess_main()

    supervisor._fork_main(requests, stdout, stderr, log_fd, begin)
    os._exit(125)


def run_callback(requests: Any, stdout: Any, stderr: Any, log_fd: int, kind: str) -> NoReturn:
    """Run one callback in this freshly forked process, by the code that Airflow runs it with; what to run is the first frame."""
    from airflow.sdk.execution_time import supervisor

    supervisor._fork_main(requests, stdout, stderr, log_fd, {"dag_processor": _callback_of_dag, "executor": _callback_of_path}[kind])
    os._exit(125)


def _callback_of_dag() -> None:
    """A `DagFileParseRequest` with callbacks: attributes of the DAG or of a task, as Airflow's dag-processor runs them."""
    from airflow.dag_processing.processor import _parse_file_entrypoint

    _parse_file_entrypoint()


def _callback_of_path() -> None:
    """A callable with an import path, as Airflow's `CallbackSubprocess` runs it on an executor."""
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"

    import structlog
    from pydantic import TypeAdapter

    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.callback_supervisor import execute_callback
    from airflow.sdk.execution_time.comms import CommsDecoder

    log = structlog.get_logger(logger_name="callback_runner")
    first = CommsDecoder(body_decoder=TypeAdapter(dict))
    what = first._get_response()
    task_runner.SUPERVISOR_COMMS = CommsDecoder(log=log, socket=first.socket)
    if (folder := what["bundle_path"]) not in sys.path:
        sys.path.append(folder)
    succeeded, error = execute_callback(
        callback_path=what["path"],
        callback_kwargs=what["kwargs"],
        dag_rel_path=what["dag_rel_path"],
        bundle_path=folder,
        log=log,
    )
    if not succeeded:
        log.error("Callback failed", error=error)
        sys.exit(1)


def supervise(workload_json: str) -> int:
    """Run a workload with Airflow's own supervisor, by the public names that Airflow's executors use."""
    from pydantic import TypeAdapter

    from airflow.executors import workloads
    from airflow.executors.base_executor import BaseExecutor
    from airflow.sdk.log import configure_logging
    from airflow.settings import dispose_orm

    dispose_orm(do_log=False)
    configure_logging(output=sys.stderr.buffer, json_output=True)
    workload = TypeAdapter(workloads.All).validate_json(workload_json)
    return BaseExecutor.run_workload(workload)


def container_hostname() -> str:
    """What `[core] hostname_callable` names: unique for each worker process, where host names and pids repeat between containers."""
    return os.environ.get("MODALFLOW_HOSTNAME") or os.uname().nodename

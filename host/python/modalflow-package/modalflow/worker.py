"""The function on Modal: runs one workload with the Airflow of its image, in a process of its own, and returns its exit code.

Airflow 3 gets the workload in a file that only it can read: an argument would show the task's token to every process, and is
limited to 128 KiB. Airflow 2 gets the command that its executors have always got. What the process prints is the call's log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

#: The volume that takes the logs, so that they are there when the call has ended.
VOLUME_VARIABLE = "MODALFLOW_LOG_VOLUME"
#: Modal's environment that has the volume.
ENVIRONMENT_VARIABLE = "MODALFLOW_ENVIRONMENT"
#: Who runs the task when the container starts as root.
USER_VARIABLE = "MODALFLOW_TASK_USER"
#: What a process that was asked to end has left to do it.
GRACE_SECONDS = 20.0

#: Of the container, not of the task: it speaks for the container.
_PRIVATE = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_TASK_SECRET")

#: Airflow's own program. Two containers may have the same input, since Modal gives it to another when it takes the first for lost:
#: the Execution API lets one of them begin (409 to the other) and tells them apart by host and process, which are the same in all
#: of Modal's containers; so the container's id stands for the host. Who is refused empties the file that the workload came in.
#: The program prints the workload, in Airflow 3.1 with the task's token: whoever may read logs could read that.
_EXECUTE_WORKLOAD = """\
import os, sys
from airflow.executors import workloads
from airflow.sdk.api import client
from airflow.sdk.execution_time.execute_workload import main
workloads.ExecuteTask.model_fields["token"].repr = False
container = os.environ.get("MODAL_TASK_ID")
if container:
    client.get_hostname = lambda: container
try:
    main()
except Exception as error:
    cause = error
    while cause is not None and getattr(getattr(cause, "response", None), "status_code", None) != 409:
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        raise
    print("this try runs elsewhere, or is over:", error, file=sys.stderr)
    open(sys.argv[-1], "w").close()
"""


def run_workload(call: dict) -> dict:
    """`call["workload"]` is what the executor sent, as JSON. `left` says that the try is not this container's."""
    work = json.loads(call["workload"])
    _note_another_version(work)
    try:
        with _command(work) as command:
            code = _run(command, _environment(work))
            has_left = "--json-path" in command and code == 0 and Path(command[-1]).stat().st_size == 0
    finally:
        _commit_logs()
    return {"exit_code": code, "left": True} if has_left else {"exit_code": code}


def _note_another_version(work: dict) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        here = version("apache-airflow")
    except PackageNotFoundError:
        raise RuntimeError("this image has no Apache Airflow: deploy with another --image or --requirement") from None
    there = work.get("airflow", here)
    if here.split(".")[:2] != there.split(".")[:2]:
        raise RuntimeError(
            f"the scheduler is Airflow {there}, this image has {here}: run `airflow modalflow deploy` with the scheduler's Airflow"
        )


@contextmanager
def _command(work: dict):
    """The command line. For Airflow 3 the workload lies in a file for as long as it runs."""
    if "command" in work:
        # Not the program on PATH: this Python's.
        yield [sys.executable, "-m", "airflow", *work["command"][1:]]
        return
    handle, path = tempfile.mkstemp(prefix="workload-", suffix=".json")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(work["workload"])
        user = _user()
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)
        yield [sys.executable, "-c", _EXECUTE_WORKLOAD, "--json-path", path]
    finally:
        Path(path).unlink(missing_ok=True)


def _environment(work: dict) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _PRIVATE}
    if work.get("server"):
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = work["server"]
    if "command" in work:
        # Airflow 2 sends what a task prints to the log file alone, unless it is told that this is a container.
        environment["AIRFLOW_IS_EXECUTOR_CONTAINER"] = "True"
    user = _user()
    if user is not None:
        environment.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    return environment


def _run(command: list[str], environment: dict[str, str]) -> int:
    user = _user()
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **as_user
    )
    try:
        return process.wait()
    except BaseException:
        # The call is cancelled, or the container ends: so does the task.
        _end(process)
        raise


def _end(process: subprocess.Popen) -> None:
    for sign, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            print(f"the task did not end within {GRACE_SECONDS:.0f} s and is killed", file=sys.stderr)


def _user():
    """The user of the task, when the container is root and the image has that user."""
    import pwd

    name = os.environ.get(USER_VARIABLE)
    if not name or os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return None
    return user if _may_log(user) else None


def _may_log(user) -> bool:
    """Whether the folder for logs is the user's: a volume comes as root's."""
    logs = os.environ.get("AIRFLOW__LOGGING__BASE_LOG_FOLDER")
    if not logs or not os.path.isdir(logs):
        return True
    try:
        os.chown(logs, user.pw_uid, user.pw_gid)
    except OSError as error:
        print(f"the task runs as root, since {logs} can't be given to {user.pw_name}: {error}", file=sys.stderr)
        return False
    return True


def _commit_logs() -> None:
    """The logs are on the volume before the result is reported."""
    name = os.environ.get(VOLUME_VARIABLE)
    if not name:
        return
    import modal

    try:
        modal.Volume.from_name(name, environment_name=os.environ.get(ENVIRONMENT_VARIABLE) or None).commit()
    except Exception as error:
        # Modal also commits when the container ends; a task that ran is not lost for that.
        print(f"cannot commit the volume {name} now: {error}", file=sys.stderr)

"""The host's binary, and the process that serves an executor. It ends with the process that started it, however that ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

#: To try another build of the host.
BINARY_VARIABLE = "MODALFLOW_HOST_BINARY"
#: How long a new process may take to listen.
START_SECONDS = 20.0


class HostUnavailable(Exception):
    """The host can't be started."""


def binary() -> str:
    """Where the host's binary is: named by a variable, in this package, or on PATH."""
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        return named
    carried = Path(__file__).parent / "bin" / "modalflow-host"
    if carried.is_file():
        return str(carried)
    found = shutil.which("modalflow-host")
    if found and not _is_script(found):
        return found
    raise HostUnavailable(
        "the program modalflow-host is missing: this installation of modalflow has no binary for this machine; "
        f"build it with cargo and name it in {BINARY_VARIABLE}"
    )


def _is_script(program: str) -> bool:
    """Whether it is this package's own command, which would look for the binary again."""
    with open(program, "rb") as file:
        return file.read(2) == b"#!"


def main() -> None:
    """The command `modalflow-host`."""
    try:
        program = binary()
    except HostUnavailable as error:
        sys.exit(f"error: {error}")
    os.execv(program, [program, *sys.argv[1:]])


@dataclass(frozen=True)
class Target:
    """Which function of which app, as whom."""

    app: str
    function: str
    environment: str = ""
    #: What the function was deployed with, as JSON in the form of an executor_config.
    deployed: str = ""
    #: MODAL_SERVER_URL, MODAL_TOKEN_ID, …: secrets, so they are not shown.
    variables: dict[str, str] = field(default_factory=dict, repr=False)


class HostProcess:
    """A running `modalflow-host executor`, at a socket that only this user can open."""

    def __init__(self, target: Target):
        self.target = target
        program = binary()
        self.folder = tempfile.mkdtemp(prefix="modalflow-")
        self.socket = os.path.join(self.folder, "executor.sock")
        self.owner = os.getpid()
        arguments = ["--socket", self.socket, "--parent", str(self.owner)]
        arguments += ["--app", target.app, "--function", target.function]
        arguments += ["--environment", target.environment, "--deployed", target.deployed]
        try:
            self.process = subprocess.Popen(
                [program, "executor", *arguments],
                # What goes wrong between the host and Modal belongs into the scheduler's log.
                env={"MODALFLOW_LOG": "error,modalflow_host=warn,modal_api=warn", **os.environ, **target.variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A terminal's Ctrl-C is for Airflow, which tells us to end in its own time.
                start_new_session=True,
            )
        except OSError as error:
            self._remove_folder()
            raise HostUnavailable(f"modalflow-host does not start: {error}") from error
        self._await_socket()

    def _await_socket(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not os.path.exists(self.socket):
            if not self.is_alive():
                self.stop()
                raise HostUnavailable(
                    f"modalflow-host ended at its start with code {self.process.returncode}; it says why above"
                )
            if time.monotonic() > until:
                self.stop()
                raise HostUnavailable(f"modalflow-host did not listen within {START_SECONDS:.0f} s")
            time.sleep(0.01)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Asks it to end, and makes sure."""
        if os.getpid() != self.owner:
            # A fork of the owner: not its child, not its business.
            return
        if self.is_alive():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._remove_folder()

    def _remove_folder(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

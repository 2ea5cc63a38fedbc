"""A way for tasks on Modal's cloud to reach an Execution API of this machine that nobody can connect to: a web server on Modal
with a public address puts each request into a Modal queue, threads here take it out, ask the local server and put the answer back.

Everything has a name of its own, and is gone when the `with` block ends, however it ends.
"""

from __future__ import annotations

import http.client
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
#: Requests that are answered at once.
THREADS = 8
#: One look into the queue; a loop ends after it.
LOOK_SECONDS = 2
#: A header of each answer that came from here.
CAME_THROUGH = "X-Hybrid-Relay"
#: Containers take their time to come up.
READY_SECONDS = 180


class Relay:
    """`with Relay("127.0.0.1", 8080, suffix) as relay:` has the public address in `relay.url`."""

    def __init__(self, host: str, port: int, suffix: str, environment: str = ""):
        self.local = host, port
        self.name = f"hybrid-relay-{suffix}"
        self.environment = environment or None
        self.url = ""
        self._secret = secrets.token_hex(24)
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Relay:
        try:
            self._deploy()
            for _ in range(THREADS):
                thread = threading.Thread(target=self._serve, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._await_server()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stops the app, and removes the queue. Each is tried, whatever becomes of the other."""
        import modal

        self._is_over.set()
        try:
            stop_app(self.name, self.environment)
        finally:
            for thread in self._threads:
                thread.join(2 * LOOK_SECONDS)
            modal.Queue.objects.delete(self.name, allow_missing=True, environment_name=self.environment)

    def _deploy(self) -> None:
        import modal

        sys.path.insert(0, str(HERE))
        import relay_server

        self._queue = modal.Queue.from_name(self.name, environment_name=self.environment, create_if_missing=True)
        self._queue.hydrate()
        port = free_port()
        variables = {
            "RELAY_QUEUE": self.name,
            "RELAY_ENVIRONMENT": self.environment or "",
            "RELAY_SECRET": self._secret,
            # Where containers share a machine with others, only its own programs may come in.
            "RELAY_HOST": "127.0.0.1" if is_here() else "0.0.0.0",
            "RELAY_PORT": str(port),
        }
        app = modal.App(self.name)
        image = modal.Image.debian_slim().add_local_python_source("relay_server")
        made = app.server(
            image=image,
            secrets=[modal.Secret.from_dict(variables)],
            port=port,
            unauthenticated=True,
            min_containers=1,
            max_containers=1,
            startup_timeout=120,
            include_source=False,
        )(relay_server.Relay)
        app.deploy(name=self.name, environment_name=self.environment)
        self.url = f"{made.get_url().rstrip('/')}/{self._secret}"

    def _await_server(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/", timeout=30):
                    return
            except urllib.error.HTTPError as error:
                # The local server may not be up yet; the way to it is what is waited for.
                if error.headers.get(CAME_THROUGH):
                    return
                problem = error
            except OSError as error:
                problem = error
            if time.monotonic() > until:
                raise RuntimeError(f"the relay on Modal does not answer: {problem}")
            time.sleep(1)

    # The local half.

    def _serve(self) -> None:
        from relay_server import ANSWER_TTL, REQUESTS

        while not self._is_over.is_set():
            try:
                request = self._queue.get(timeout=LOOK_SECONDS, partition=REQUESTS)
                self._queue.put(self._ask(request), partition=request["id"], partition_ttl=ANSWER_TTL)
            except queue.Empty:
                continue
            except Exception as error:
                if not self._is_over.is_set():
                    print(f"the relay goes on after {error!r}", file=sys.stderr, flush=True)
                    time.sleep(1)

    def _ask(self, request: dict) -> dict:
        from relay_server import HOP_BY_HOP, MOST_BYTES

        connection = http.client.HTTPConnection(*self.local, timeout=50)
        try:
            connection.request(request["method"], request["path"], request["body"], request["headers"])
            answer = connection.getresponse()
            body = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            status = answer.status
        except OSError as error:
            # As from a web server whose application is away: Airflow tries again.
            status, headers, body = 503, {}, f"the local server does not answer: {error}".encode()
        finally:
            connection.close()
        if len(body) > MOST_BYTES:
            status, headers, body = 502, {}, b"the answer is larger than a queue's item"
        return {"status": status, "headers": headers | {CAME_THROUGH: "1"}, "body": body}


def stop_app(name: str, environment: str | None) -> None:
    """By Modal's own command; whether there is such an app does not matter."""
    command = [sys.executable, "-m", "modal", "app", "stop", "--yes", name]
    command += ["--env", environment] if environment else []
    stopped = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    said = stopped.stdout + stopped.stderr
    if stopped.returncode != 0 and "already stopped" not in said and "No App" not in said:
        raise RuntimeError(f"`modal app stop {name}`: {said}")


def is_here() -> bool:
    """Whether Modal is an emulator on this machine."""
    return urlsplit(os.environ.get("MODAL_SERVER_URL", "")).hostname in ("127.0.0.1", "localhost", "::1")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

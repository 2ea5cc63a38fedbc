"""The functions of an environment on Modal: imported by Modal's container runtime, each starts the host, a program in the image.

What the environment is comes in variables (Secrets), its files lie on the volume. Nothing is decided here, and nothing of
Airflow is imported. Names and signatures are part of what is deployed: `create` and `modal_app.py` say the same of them.
"""

import asyncio
import contextlib
import datetime
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

import modal

HOST = "/opt/modalflow/modalflow-host"
VOLUME = "/vol"
RELOADS = (0.2, 1, 3)
"""Seconds between two attempts to look at the volume anew."""
WARM_UP = 120
"""Seconds that a worker has to get warm."""
FAREWELL = 10
"""Seconds that a container has to hand in what it knows when its worker has ended."""


def _here(path):
    """Where a path of the image is: below a folder on machines whose emulator can't give containers paths of their own."""
    if os.path.exists(path):
        return path
    return os.environ.get("MODALFLOW_CONTAINER_FILES", "") + path


def _environment():
    return {
        **os.environ,
        "MODALFLOW_HOME": os.path.join(tempfile.gettempdir(), "modalflow-" + os.environ.get("MODAL_TASK_ID", "container")),
        "MODALFLOW_CONTAINER_PYTHON": _settings().get("airflow_python") or sys.executable,
        "MODALFLOW_CONTAINER_VOLUME": _here(VOLUME),
    }


def _settings():
    return json.loads(os.environ["MODALFLOW_SETTINGS"])


def _command(*words):
    return [_here(HOST), *words, "--env", _settings()["name"]]


def _volume():
    return modal.Volume.from_name(_settings()["volume"])


def scheduler_tick():
    """One tick: the schedule calls it, and whoever has changed something."""
    try:
        # A container that is warm has the files of its last look. Old DAG files are better than no tick.
        _volume().reload()
    except Exception as error:
        print(f"the volume is as it was before: {error}", file=sys.stderr)
    done = subprocess.run(_command("tick", "--output", "json"), env=_environment(), stdout=subprocess.PIPE)
    told = {"ended_at": datetime.datetime.now(datetime.timezone.utc).isoformat(), "exit_code": done.returncode}
    if done.returncode == 0:
        told["report"] = json.loads(done.stdout)
    try:
        modal.Dict.from_name("airflow-state-" + _settings()["name"])["scheduler_tick"] = json.dumps(told)
    except Exception as error:
        # Nobody decides by it.
        print(f"the last tick can't be noted: {error}", file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"modalflow-host tick ended with {done.returncode}")


async def run_task(payload: dict) -> dict:
    """One try of one task, or one callback; `payload` has the workload as JSON."""
    try:
        return await _WORKER.run(payload["workload"])
    finally:
        await _WORKER.outlive()


class execution_api:
    """What workers report to."""

    @modal.enter()
    def start(self):
        self.host = _Host("execution-api", *_listen("MODALFLOW_API_PORT"))

    @modal.exit()
    def stop(self):
        self.host.end()


class airflow_ui:
    """The real Airflow UI."""

    @modal.enter()
    def start(self):
        self.host = _Host("ui", *_listen("MODALFLOW_UI_PORT"))

    @modal.exit()
    def stop(self):
        self.host.end()


def _listen(port):
    # On a machine that others share, only its own programs may come in.
    host = "127.0.0.1" if "MODALFLOW_CONTAINER_FILES" in os.environ else "0.0.0.0"
    return ["--host", host, "--port", os.environ[port]]


class _Host:
    """The program that answers in a server's container. Without it the container is of no use and ends too: the next request
    starts another one."""

    def __init__(self, *words):
        self.ending = False
        self.process = subprocess.Popen(_command(*words), env=_environment())
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        code = self.process.wait()
        if not self.ending:
            print(f"the host ended by itself with {code}: the container ends too", file=sys.stderr, flush=True)
            os._exit(1)

    def end(self):
        self.ending = True
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class _Worker:
    """The warm host that runs tasks, and the thread that listens to it. It is started with the container, and is in a
    snapshot of its memory; what belongs to one container is told it with the first input."""

    def __init__(self):
        self.lock = threading.Lock()
        self.answers = {}
        self.running = 0
        self.next = 0
        self.container = None
        self.failure = None
        self.is_gone = False
        self.warm = threading.Event()
        self.left = threading.Event()
        folder = tempfile.mkdtemp(prefix="modalflow-")
        path = os.path.join(folder, "worker.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        self.process = subprocess.Popen(_command("worker", "--bridge", path), env=_environment())
        threading.Thread(target=self.listen, args=(listener,), daemon=True).start()
        # Whoever takes a snapshot takes it of a worker that is warm, and no input comes to one that is not.
        if not self.warm.wait(WARM_UP) or self.failure:
            self.process.kill()
            raise RuntimeError(self.failure or f"the worker did not get warm within {WARM_UP} s")

    def listen(self, listener):
        listener.settimeout(60)
        try:
            self.socket, _ = listener.accept()
            self.socket.settimeout(None)
            with self.socket.makefile("rb") as lines:
                for line in lines:
                    self.hear(json.loads(line))
        except Exception as error:
            self.failure = self.failure or f"the worker can't be heard: {error}"
        self.failure = self.failure or f"the worker ended with {self.process.wait()}"
        if not self.warm.is_set():
            self.warm.set()
        else:
            self.leave()

    def give_up(self, reason):
        self.failure = self.failure or reason
        # Its end is heard, and is the container's.
        self.process.kill()

    def leave(self):
        """A container without its worker takes no more inputs, says what became of those it has, and ends."""
        print(f"{self.failure}: the container ends", file=sys.stderr, flush=True)
        self.process.kill()
        end = threading.Timer(FAREWELL, os._exit, (1,))
        end.daemon = True
        end.start()
        try:
            from modal.experimental import stop_fetching_inputs

            # First of all: an answer makes room for another input.
            stop_fetching_inputs()
        except Exception as error:
            # Nobody gets an answer then: what runs here ends with the container.
            print(f"the container can't be stopped gracefully: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        self.left.set()
        with self.lock:
            answers, self.answers = self.answers, {}
        for loop, future, _ in answers.values():
            loop.call_soon_threadsafe(_settle, future, {"raised": self.failure})

    def hear(self, word):
        say = word.pop("say")
        if say == "warm":
            self.warm.set()
        elif say in ("ready", "resting", "failed"):
            self.answer("state", {"raised": word["reason"]} if say == "failed" else {"returned": say})
            if say == "failed" and not self.warm.is_set():
                self.failure = word["reason"]
        elif say == "done":
            self.answer(word["id"], word["outcome"])
        elif say == "commit":
            # Not in this thread: other tasks' words come meanwhile.
            threading.Thread(target=self.commit, args=(word["id"],), daemon=True).start()

    def commit(self, number):
        error = None
        try:
            _volume().commit()
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        with contextlib.suppress(RuntimeError):
            self.say("committed", id=number, error=error)

    def answer(self, key, outcome):
        if outcome == "cancelled":
            outcome = {"cancelled": None}
        with self.lock:
            waiting = self.answers.pop(key, None)
        if waiting:
            loop, future, _ = waiting
            loop.call_soon_threadsafe(_settle, future, outcome)

    def say(self, word, **fields):
        line = json.dumps({"say": word, **fields}).encode() + b"\n"
        try:
            with self.lock:
                self.socket.sendall(line)
        except OSError as error:
            self.is_gone = True
            raise RuntimeError(f"the worker does not listen any more: {error}") from None

    def expect(self, key):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self.lock:
            if self.failure:
                raise RuntimeError(self.failure)
            self.answers[key] = (loop, future, key)
        return future

    async def outlive(self):
        """Before an input is answered: if the worker has ended, no other input may come in its place."""
        if self.is_gone or self.failure or self.process.poll() is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.left.wait, FAREWELL)

    async def ask(self, word, **fields):
        answered = self.expect("state")
        self.say(word, **fields)
        outcome = await answered
        if "raised" in outcome:
            raise RuntimeError(outcome["raised"])

    async def prepare(self):
        """Before the first of the inputs that run now: this container's name, and the volume as it is now."""
        container = os.environ.get("MODAL_TASK_ID", "")
        if self.container is not None:
            await self.ask("rest")
        await self.look_anew()
        if self.container != container:
            self.url = await modal.Server.from_name(_settings()["app"], "execution_api").get_url.aio()
        self.container = container
        await self.ask(
            "hello", container=container, execution_api_url=f"{self.url}/execution/", environment=_texts(os.environ)
        )

    async def look_anew(self):
        """What was committed before this input was sent is seen, or the input does not start."""
        for pause in RELOADS:
            try:
                return await _volume().reload.aio()
            except Exception as error:
                # Open files, most likely: whoever had them is ending.
                print(f"the volume can't be looked at anew yet: {error}", file=sys.stderr)
            await asyncio.sleep(pause)
        await _volume().reload.aio()

    async def run(self, workload):
        async with _turn():
            if self.running == 0:
                try:
                    await self.prepare()
                except Exception as error:
                    self.give_up(f"the container can't get ready: {error}")
                    raise
            self.running += 1
            self.next += 1
            number = self.next
        try:
            ended = self.expect(number)
            self.say("run", id=number, workload=workload)
            try:
                outcome = await asyncio.shield(ended)
            except asyncio.CancelledError:
                # The task is told, and its log is brought to an end; then the call ends as cancelled.
                self.say("cancel", id=number)
                await asyncio.wait([ended], timeout=60)
                raise
        finally:
            self.running -= 1
        if "raised" in outcome:
            raise RuntimeError(outcome["raised"])
        return outcome.get("returned", {"state": "cancelled"})


_TURN = None


def _turn():
    """One input at a time gets ready. Made in the loop that runs inputs."""
    global _TURN
    if _TURN is None:
        _TURN = asyncio.Lock()
    return _TURN


def _texts(environment):
    """Without what is no text: JSON has no place for it."""

    def is_text(word):
        try:
            word.encode()
        except UnicodeEncodeError:
            return False
        return True

    return {name: value for name, value in environment.items() if is_text(name) and is_text(value)}


def _settle(future, outcome):
    if not future.done():
        future.set_result(outcome)


# Only the worker's own Secret says this: the other functions start no worker.
_WORKER = _Worker() if os.environ.get("MODALFLOW_ROLE") == "worker" else None

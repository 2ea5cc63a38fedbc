"""Logs of finished tasks, read from the volume on Modal that their containers wrote them to. Nothing is written here: the
worker commits the volume itself.

For processes that have no executor, the API server or webserver above all. The host does the work; it is started with the first
log that somebody looks at, once in a process, and ends with it.
"""

from __future__ import annotations

import atexit
import codecs
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: One part of a file. Modal keeps files in blocks of this size.
PART_BYTES = 8 << 20
#: One question: the host answers within 30 s, the first one starts it.
ANSWER_SECONDS = 40.0
#: What the executor tells as long as a task runs is newer than what its container has committed.
RUNNING = "running"
#: Beside the log of a task: what its trigger said, in a process that is not on Modal.
TRIGGER_SUFFIX = ".trigger"


class Unreadable(Exception):
    """Modal, or the host, can't be asked now."""


class Log(NamedTuple):
    path: str
    size: int


class VolumeLogs:
    """The volume `[modal_executor] volume_name`. Its methods may be called from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._line = None
        os.register_at_fork(after_in_child=self._forget_parent)

    def _forget_parent(self) -> None:
        # The host is the parent's child, and the lock may be held by a thread that is not here.
        self._lock = threading.Lock()
        self._line = None

    def find(self, start_of_path: str) -> list[Log]:
        """The files whose paths begin so, for instance `…/attempt=1.log`; none when there is none (yet)."""
        volume = _settings().volume_name
        if not volume:
            return []
        answer = self._ask("find_files", volume, start_of_path)
        return [Log(file.path, file.size) for file in answer]

    def texts(self, log: Log) -> Iterator[str]:
        """What a log says, part by part. It may grow meanwhile: what came after it was found is not read."""
        volume = _settings().volume_name
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        at = 0
        while at < log.size:
            content = self._ask("read_file", volume, log.path, at, min(PART_BYTES, log.size - at))
            if not content:
                break
            at += len(content)
            yield decoder.decode(content)
        yield decoder.decode(b"", final=True)

    def lines(self, log: Log) -> Iterator[str]:
        """The same line by line; when reading breaks off, the last one says so."""
        rest = ""
        try:
            for text in self.texts(log):
                *whole, rest = (rest + text).split("\n")
                yield from whole
        except Unreadable as error:
            yield from [rest] if rest else []
            rest = f"The rest of {log.path} can't be read: {error}"
        if rest:
            yield rest

    def stop(self) -> None:
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.stop()

    # The conversation with the host.

    def _ask(self, method: str, *arguments):
        from modalflow.executor.line import allow_forks

        from modalflow.host import HostUnavailable

        allow_forks()
        try:
            return getattr(self._have_line(), method)(*arguments, seconds=ANSWER_SECONDS)
        except HostUnavailable as error:
            raise Unreadable(str(error)) from error

    def _have_line(self):
        from modalflow.executor.line import Line
        from modalflow.executor.settings import target

        with self._lock:
            if self._line is None:
                self._line = Line(lambda: target(_settings()))
                atexit.register(self._line.stop)
            return self._line


class Found(NamedTuple):
    """The logs of one try: what to tell about them, those on the volume, and trigger's logs that lie here."""

    messages: list[str]
    logs: list[Log]
    local: list[Path]


def find(logs: VolumeLogs, relative_path: str, is_running: bool) -> Found:
    """The logs of the try whose log Airflow calls so. Never raises: what is wrong is among the messages."""
    if is_running:
        return Found([], [], [])
    volume = _settings().volume_name
    try:
        found = logs.find(relative_path)
    except Unreadable as error:
        return Found([f"The volume {volume} on Modal can't be read: {error}"], [], [])
    except Exception as error:
        # A page with other logs is better than none.
        return Found([f"The volume {volume} on Modal can't be read: {error!r}"], [], [])
    if not found:
        return Found([f"No {relative_path} on the volume {volume} on Modal"] if volume else [], [], [])
    # Airflow looks for no local files when it was given others.
    local = _local_trigger_logs(relative_path)
    messages = [f"Read from the volume {volume} on Modal: {log.path}" for log in found]
    return Found(messages + [str(path) for path in local], found, local)


def _local_trigger_logs(relative_path: str) -> list[Path]:
    from airflow.configuration import conf

    base = Path(os.path.realpath(conf.get("logging", "base_log_folder")))
    log = base / relative_path
    try:
        names = sorted(name for name in os.listdir(log.parent) if name.startswith(log.name + TRIGGER_SUFFIX))
    except OSError:
        return []
    resolved = [Path(os.path.realpath(log.parent / name)) for name in names]
    return [path for path in resolved if base in path.parents and path.is_file()]


def _settings():
    from airflow.configuration import conf

    from modalflow.executor.settings import Settings

    return Settings.read(conf)

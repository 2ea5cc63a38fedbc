"""The line to the host: a thread that starts it, speaks with it, starts it again when it dies, and loses nothing then.

The executor hands in what it wants and takes out what has happened; neither ever waits for Modal. Nothing here knows Airflow.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modalflow.host import HostProcess, HostUnavailable, Target

log = logging.getLogger(__name__)

#: One answer of the host to a request that needs no one else.
ANSWER_SECONDS = 10.0
#: The host looks for Modal for 63 s, and then says why there is none.
HEALTH_SECONDS = 75.0
#: Somebody waits for a page meanwhile. The host gives Modal 10 s, and then says so.
LOGS_SECONDS = 15.0
#: The longest that one question for news waits at the host.
OBSERVE_SECONDS = 20.0
#: Between two tries to get a host, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: How long one who was told of a host's end waits for the next before that is asked again.
REPLACED_SECONDS = 0.3
#: How long somebody who asks is kept waiting while no host can be started.
TROUBLE_SECONDS = 5.0
#: Workloads in one message.
BATCH = 500
#: A message may hold the news of thousands of calls. A socket's path is no authority that HTTP/2 allows.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
]


def allow_forks() -> None:
    """For processes that only read: one that is forked off then has a gRPC of its own. To be called before the first request,
    because gRPC looks at it when it is imported. Not for a scheduler, whose long question each fork would wait for."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")


@dataclass
class Started:
    uuid: str
    call_id: str


@dataclass
class Ended:
    uuid: str
    meaning: str
    what: str
    result: str
    call_id: str


@dataclass
class Refused:
    uuid: str
    reason: str
    message: str
    hint: str


@dataclass
class _Open:
    """A call whose end is waited for."""

    call_id: str
    workload: object | None
    #: The present host has heard of it.
    is_sent: bool = False
    #: So has any host: it may have started the call, and died before it could tell its id.
    was_sent: bool = False


@dataclass
class _Wishes:
    """What the executor wants that the host has not heard yet."""

    cancel: dict[str, _Open] = field(default_factory=dict)
    forget: list = field(default_factory=list)


class Line:
    """Call its methods from any thread. `target` is asked anew for each process."""

    def __init__(self, target: Callable[[], Target], max_attempts: int = 3):
        self._target = target
        self._max_attempts = max_attempts
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._news: queue.SimpleQueue = queue.SimpleQueue()
        self._open: dict[str, _Open] = {}
        self._wishes = _Wishes()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._process: HostProcess | None = None
        self._channel = None
        self._stub = None
        self._is_ending = threading.Event()
        #: The connection has another token than the host's: the thread gets another host.
        self._renew = False
        #: Why there is no host at the moment; empty when there is one.
        self.trouble = ""

    # What the executor says.

    def start(self) -> None:
        """Starts the thread; in a fork of the process that has it, a thread of its own."""
        with self._lock:
            if self._thread is not None and self._owner == os.getpid():
                return
            if self._owner and self._owner != os.getpid():
                self._inbox, self._news = queue.SimpleQueue(), queue.SimpleQueue()
                self._open, self._wishes = {}, _Wishes()
                self._process = self._channel = self._stub = None
            self._owner = os.getpid()
            self._is_ending.clear()
            self._thread = threading.Thread(target=self._run, name="modalflow-line", daemon=True)
            self._thread.start()

    def spawn(self, uuid: str, payload: str, executor_config: str = "") -> None:
        self.start()
        self._inbox.put(("spawn", uuid, payload, executor_config))

    def follow(self, uuid: str, call_id: str) -> None:
        """Waits for the end of a call that somebody else started."""
        self.start()
        self._inbox.put(("follow", uuid, call_id))

    def cancel(self, uuid: str, call_id: str) -> None:
        self.start()
        self._inbox.put(("cancel", uuid, call_id))

    def news(self) -> list:
        """What has happened since the last time. Does not wait."""
        found = []
        while True:
            try:
                found.append(self._news.get_nowait())
            except queue.Empty:
                return found

    def logs(self, call_id: str, limit: int = 1000) -> list[str]:
        """The newest lines that a call printed. Waits for Modal."""
        from modalflow.executor import messages

        request = messages.message("LogsRequest")(call_id=call_id, limit=limit)
        return list(self._ask("Logs", request, LOGS_SECONDS).lines)

    def find_files(self, volume: str, start_of_path: str, seconds: float) -> list:
        """The files of a volume whose paths begin so: each has `path` and `size`. Waits for Modal."""
        from modalflow.executor import messages

        request = messages.message("FindFilesRequest")(volume=volume, start_of_path=start_of_path)
        return list(self._ask("FindFiles", request, seconds).files)

    def read_file(self, volume: str, path: str, start: int, length: int, seconds: float) -> bytes:
        """A part of a volume's file. Waits for Modal."""
        from modalflow.executor import messages

        request = messages.message("ReadFileRequest")(volume=volume, path=path, start=start, length=length)
        return self._ask("ReadFile", request, seconds).content

    def health(self, seconds: float = HEALTH_SECONDS):
        """The host's `HealthResponse`. Waits for Modal."""
        from modalflow.executor import messages

        return self._ask("Health", messages.message("HealthRequest")(), seconds)

    def stop(self, seconds: float = 10.0) -> None:
        """Says what is left to be said, ends the host and the thread. Calls on Modal go on."""
        if self._thread is None or self._owner != os.getpid():
            return
        self._is_ending.set()
        self._inbox.put(("wake",))
        self._thread.join(seconds)
        self._thread = None

    def _ask(self, method: str, request, seconds: float):
        """One answer; or `HostUnavailable`, in words for a user. When another host takes the place of the one that was asked, that
        one is asked too."""
        import grpc

        self.start()
        until = time.monotonic() + seconds
        while True:
            stub = self._await_host(until)
            try:
                return getattr(stub, method)(request, timeout=max(until - time.monotonic(), 0.1))
            except grpc.RpcError as error:
                if time.monotonic() >= until:
                    raise HostUnavailable(f"modalflow-host did not answer within {seconds:.0f} s: {_words(error)}") from error
                if not self._is_replaced(stub, error.code()):
                    raise HostUnavailable(_words(error)) from error
            except ValueError as error:
                # gRPC's word for a channel that was closed meanwhile.
                if self._stub is stub:
                    raise HostUnavailable(repr(error)) from error
            self._inbox.put(("wake",))
            self._await_another(stub)

    def _await_host(self, until: float):
        trouble_until = time.monotonic() + TROUBLE_SECONDS
        while True:
            stub, now = self._stub, time.monotonic()
            if stub is not None:
                return stub
            if self._is_ending.is_set():
                raise HostUnavailable("modalflow-host is being stopped")
            if now > until or self.trouble and now > trouble_until:
                raise HostUnavailable(self.trouble or "modalflow-host did not start in time")
            time.sleep(0.02)

    def _await_another(self, stub) -> None:
        until = time.monotonic() + REPLACED_SECONDS
        while self._stub is stub and time.monotonic() < until:
            time.sleep(0.02)

    def _is_replaced(self, stub, code) -> bool:
        """Whether the host that answered so has another one in its place, or will have. Of its own it never says UNAVAILABLE."""
        import grpc

        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return True
        return code == grpc.StatusCode.UNAUTHENTICATED and (self._stub is not stub or self._has_new_target())

    # The thread.

    def _run(self) -> None:
        import grpc

        pause = FIRST_PAUSE
        while True:
            try:
                self._have_host()
                pause = FIRST_PAUSE
                if self._converse():
                    break
                continue
            except HostUnavailable as error:
                self.trouble = str(error)
            except grpc.RpcError as error:
                self.trouble = f"modalflow-host does not answer: {_words(error)}"
            except Exception as error:
                log.exception("The line to modalflow-host broke")
                self.trouble = repr(error)
            if self._is_ending.is_set():
                break
            log.warning("%s; it is started again in %.1f s, no call is lost", self.trouble, pause)
            self._drop_host()
            self._is_ending.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self._drop_host()

    def _have_host(self) -> None:
        import grpc

        from modalflow.executor import messages

        if self._process is not None and self._process.is_alive() and not self._renew:
            return
        self._drop_host()
        self._renew = False
        try:
            target = self._target()
        except Exception as error:
            raise HostUnavailable(f"Modal's connection can't be read: {error!r}") from error
        self._process = HostProcess(target)
        self._channel = grpc.insecure_channel(f"unix:{self._process.socket}", options=CHANNEL_OPTIONS)
        stub = messages.Stub(self._channel)
        try:
            # A question instead of gRPC's own future for that, whose thread looks for a while longer: a fork meanwhile has no gRPC.
            stub.Forget(messages.message("ForgetRequest")(), timeout=ANSWER_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            raise HostUnavailable("modalflow-host does not take connections") from error
        for call in (*self._open.values(), *self._wishes.cancel.values()):
            call.is_sent = False
        self._stub = stub
        self.trouble = ""

    def _drop_host(self) -> None:
        self._stub = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _converse(self) -> bool:
        """Says what is wanted and asks for news, once. True when all is said and the end has come."""
        self._read_inbox()
        self._say_wishes()
        self._spawn_unsent()
        if self._is_ending.is_set():
            return True
        asked = self._ask_for_news() if self._open else None
        # Whatever comes first: a wish of the executor, or news.
        item = self._inbox_or(asked)
        if item is not None:
            # First of all: what comes next may raise, and a wish is not heard twice.
            self._note(item)
        if asked is not None:
            if asked.done():
                answer = asked.result()
                self._hear(answer.observations)
                if answer.signed_out:
                    self._has_new_target()
            else:
                asked.cancel()
        return False

    def _inbox_or(self, asked):
        """The executor's next wish; nothing when news came first, or a second without calls has passed."""
        if asked is not None:
            asked.add_done_callback(lambda done: self._inbox.put(("heard", done)))
        while True:
            try:
                item = self._inbox.get(timeout=OBSERVE_SECONDS + ANSWER_SECONDS if asked else 1.0)
            except queue.Empty:
                return None
            if item[0] != "heard":
                return item
            if item[1] is asked:
                return None
            # An earlier question, which was withdrawn.

    def _read_inbox(self) -> None:
        while True:
            try:
                self._note(self._inbox.get_nowait())
            except queue.Empty:
                return

    def _note(self, item: tuple) -> None:
        from modalflow.executor import messages

        what = item[0]
        if what == "spawn":
            _, uuid, payload, executor_config = item
            workload = messages.Workload(key=uuid, payload=payload, executor_config=executor_config)
            self._open[uuid] = _Open("", workload)
        elif what == "follow":
            _, uuid, call_id = item
            self._open[uuid] = _Open(call_id, None, is_sent=True)
        elif what == "cancel":
            _, uuid, call_id = item
            known = self._open.pop(uuid, None) or _Open(call_id, None)
            known.call_id = known.call_id or call_id
            if known.call_id or known.was_sent:
                self._wishes.cancel[uuid] = known

    def _say_wishes(self) -> None:
        from modalflow.executor import messages

        if self._wishes.cancel:
            # One whose id nobody knows any more: the same key gives the same call.
            self._spawn([call for call in self._wishes.cancel.values() if call.workload and not call.is_sent and not call.call_id])
            calls = [messages.Call(key=uuid, call_id=call.call_id) for uuid, call in self._wishes.cancel.items()]
            self._stub.Cancel(messages.message("CancelRequest")(calls=calls), timeout=ANSWER_SECONDS)
            self._wishes.cancel = {}
        if self._wishes.forget:
            request = messages.message("ForgetRequest")(keys=self._wishes.forget)
            self._stub.Forget(request, timeout=ANSWER_SECONDS)
            self._wishes.forget = []

    def _spawn_unsent(self) -> None:
        self._spawn([call for call in self._open.values() if not call.is_sent and not call.call_id])

    def _spawn(self, calls: list[_Open]) -> None:
        from modalflow.executor import messages

        for start in range(0, len(calls), BATCH):
            batch = calls[start : start + BATCH]
            request = messages.message("SpawnRequest")(
                workloads=[call.workload for call in batch], max_attempts=self._max_attempts
            )
            for call in batch:
                call.was_sent = True
            self._stub.Spawn(request, timeout=ANSWER_SECONDS)
            for call in batch:
                call.is_sent = True

    def _ask_for_news(self):
        from modalflow.executor import messages

        calls = [messages.Call(key=uuid, call_id=call.call_id) for uuid, call in self._open.items()]
        request = messages.message("ObserveRequest")(
            calls=calls, wait_milliseconds=int(OBSERVE_SECONDS * 1000)
        )
        return self._stub.Observe.future(request, timeout=OBSERVE_SECONDS + ANSWER_SECONDS)

    def _hear(self, observations) -> None:
        from modalflow.executor import messages

        # A secrets backend is asked once for all.
        has_new_target = functools.cache(self._has_new_target)
        for observation in observations:
            uuid, what = observation.key, observation.WhichOneof("what")
            call = self._open.get(uuid)
            if call is None:
                continue
            if what == "started":
                call.call_id, call.workload = observation.started, None
                self._news.put(Started(uuid, observation.started))
            elif what == "unheard":
                call.is_sent = False
            elif what == "ended":
                ended = observation.ended
                if not call.call_id:
                    self._news.put(Started(uuid, ended.call_id))
                meaning = messages.Ended.Meaning.Name(ended.meaning)
                self._news.put(Ended(uuid, meaning, ended.what, ended.result, ended.call_id))
                self._close(uuid)
            elif what == "refused":
                refused = observation.refused
                reason = messages.Refused.Reason.Name(refused.reason)
                if reason == "SIGNED_OUT" and has_new_target():
                    call.is_sent = False
                    continue
                self._news.put(Refused(uuid, reason, refused.message, refused.hint))
                self._close(uuid)

    def _has_new_target(self) -> bool:
        """Whether the connection has another token than the one that Modal refused. Then the next host has that, and hears of all
        calls anew."""
        process = self._process
        if process is None:
            # The next one is being started.
            return True
        try:
            if not self._renew and self._target() != process.target:
                log.warning("Modal did not take the token; the connection has another one now")
                self._renew = True
        except Exception:
            log.exception("Modal did not take the token, and the connection can't be read")
        return self._renew

    def _close(self, uuid: str) -> None:
        del self._open[uuid]
        self._wishes.forget.append(uuid)


def _words(error) -> str:
    details = getattr(error, "details", None)
    return (details() if callable(details) else None) or repr(error)

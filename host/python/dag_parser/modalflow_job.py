"""One child as the warm process sees it: its streams, its time, its end, and what it leaves behind."""

import json
import os
import shutil
import signal
import socket
import struct
import time

from modalflow_child import child
from modalflow_walls import FIRST_USER, has_other_users

RESULT_BYTES = 32 << 20  # of one child's result
QUESTION_BYTES = 16 << 10  # of a question for a Variable or a Connection
OUTPUT_BYTES = 32 << 10  # kept of each end of stdout and stderr


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
        before = len(self.received)
        self.take(descriptor)
        if len(self.received) > before:
            self.look_at_frames()

    def take(self, descriptor):
        """What was written by now, up to one block."""
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
        elif len(self.received) <= RESULT_BYTES + 5:
            self.received += data

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
                self.take(descriptor)
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

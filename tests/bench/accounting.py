"""What the kernel says of processes: CPU seconds and memory of everything below a root process. Linux only."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(*roots: int) -> dict[int, float]:
    """CPU seconds of each live process at or below the roots, with those of its children that have ended."""
    parents, seconds = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            parents[int(entry)], seconds[int(entry)] = stat
    children: dict[int, list[int]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    found, waiting = {}, [root for root in roots if root in seconds]
    while waiting:
        process = waiting.pop()
        if process not in found:
            found[process] = seconds[process]
            waiting += children.get(process, [])
    return found


def cpu(*roots: int) -> float:
    return sum(tree(*roots).values())


class Orphans:
    """Processes whose parent ended before them. They become ours, so that no CPU time is lost with them."""

    def __init__(self) -> None:
        set_child_subreaper = 36
        if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self._ended = 0.0

    def cpu(self, ours: set[int]) -> float:
        """CPU seconds of all orphans so far. `ours` are the children that somebody else waits for."""
        living = 0.0
        for process in tree(os.getpid()):
            if process in ours or parent_or_none(process) != os.getpid():
                continue
            ended, _, usage = os.wait4(process, os.WNOHANG)
            if ended:
                self._ended += usage.ru_utime + usage.ru_stime
            else:
                living += cpu(process)
        return self._ended + living


def machine() -> float:
    """CPU seconds that the whole machine has spent busy: what is not ours is other work."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields[position] for position in (0, 1, 2, 5, 6, 7)) / TICKS


def memory(*roots: int) -> dict[str, tuple[int, float]]:
    """For each kind of process: how many, and their PSS in MiB together (shared pages are divided up)."""
    count, mebibytes = Counter(), Counter()
    for process in tree(*roots):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            name = _name(process)
        except OSError:
            continue  # it ended
        count[name] += 1
        mebibytes[name] += sum(int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return {name: (count[name], mebibytes[name]) for name in count}


def parent(process: int) -> int:
    found = parent_or_none(process)
    if found is None:
        raise ProcessLookupError(process)
    return found


def parent_or_none(process: int) -> int | None:
    stat = _stat(process)
    return stat[0] if stat else None


def _stat(process: int) -> tuple[int, float] | None:
    try:
        raw = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    fields = raw[raw.rindex(")") + 2 :].split()
    return int(fields[1]), sum(int(field) for field in fields[11:15]) / TICKS


def _name(process: int) -> str:
    """What a process is, in a word or two: its program, and its first argument where that tells more."""
    arguments = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
    if not arguments:
        return Path(f"/proc/{process}/comm").read_text().strip()
    program = os.path.basename(arguments[0]).rstrip(":")
    if program.startswith("postgres"):
        return "postgres"
    if program.startswith("python") and len(arguments) > 1:
        plain = [argument for argument in arguments[1:] if not argument.startswith("-")]
        return " ".join(os.path.basename(argument) for argument in plain[:2]) or program
    if program == "airflow" or program.startswith("modalflow"):
        return " ".join([program, *arguments[1:2]])
    return program

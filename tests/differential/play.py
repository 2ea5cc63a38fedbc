"""Plays histories: many cases at once, each waiting for what its own rows say. A case is what both systems get: DAG
files, and a history of clicks and waits.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import rows
from systems import System

FINISHED = ("success", "failed")
#: Seconds that a process may take to leave after its task has ended.
LAST_WORDS = 10


@dataclass
class Case:
    """One comparison. A step of the history is one of

    ["trigger", DAG, RUN, {…}]       POST dagRuns; the mapping goes into the body (conf, logical_date)
    ["click", METHOD, PATH, BODY]    any request of the REST API
    ["open", NAME]                   makes the file that a task waits for: Variable "gates" / NAME
    ["run", DAG, RUN, STATE]         waits until the run has this state; "finished" is any final one
    ["runs", DAG, COUNT]             waits until there are so many runs, all finished
    ["task", DAG, RUN, TASK, STATE]  waits until the task (all of its instances) has this state
    ["tries", DAG, RUN, TASK, N]     waits until the task runs its Nth try
    ["still", SECONDS]               lets time pass in which nothing may happen
    ["look", NAME]                   takes the rows as they are
    """

    name: str
    dags: list[str]
    history: list[list]
    source: str | None = None  # the text of its DAG file, if it brings one
    runs: list[str] | None = None  # only these are compared
    chance: list[str] = field(default_factory=list)  # tasks whose XComs are drawn at random

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Player:
    """Plays cases on a system that has their files."""

    system: System
    patience: float = 300
    at_once: int = 32
    began: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.timezone.utc))

    def prepare(self) -> Path:
        """A folder that tasks look into."""
        gates = self.system.folder / "gates"
        gates.mkdir()
        self.gates = gates
        self.expect("POST", "/variables", {"key": "gates", "value": str(gates)})
        self.expect("POST", "/pools", {"name": "narrow", "slots": 2})
        return gates

    def expect(self, method: str, path: str, body) -> None:
        status, answer = self.system.click(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{self.system.name}: {method} {path}: {status} {answer}")

    def play(self, cases: list[Case], told=lambda case, result: None) -> dict[str, dict]:
        """The result of each case by its name."""
        waiting, results = list(cases), {}
        playing: list[tuple[Case, Iterator[bool], dict, float]] = []
        while waiting or playing:
            while waiting and len(playing) < self.at_once:
                case = waiting.pop(0)
                result: dict = {}
                playing.append((case, self.steps(case, result), result, time.monotonic()))
            self.system.check()
            self.states = self.look_at_runs()
            still = []
            for case, steps, result, since in playing:
                done = next(steps, None) is None
                if not done and time.monotonic() - since > self.patience:
                    print(f"{self.system.name}: {case.name} is stuck at {result.get('at')}", file=sys.stderr, flush=True)
                    result["stuck"], done = result["at"], True
                if not done:
                    still.append((case, steps, result, since))
                    continue
                result.pop("at", None)
                result["end"] = rows.dump(self.system, case, self.began)
                results[case.name] = result
                told(case, result)
            moved = len(still) < len(playing)
            playing = still
            if not moved:
                time.sleep(0.1)
        return results

    def look_at_runs(self) -> dict[str, dict[str, str]]:
        states: dict[str, dict[str, str]] = {}
        for dag, run, state in self.system.database.query("SELECT dag_id, run_id, state FROM dag_run"):
            states.setdefault(dag, {})[run] = state
        return states

    def steps(self, case: Case, result: dict) -> Iterator[bool]:
        """Yields while it waits."""
        for dag in case.dags:
            status, answer = self.system.click("PATCH", f"/dags/{dag}", {"is_paused": False})
            if status >= 300:
                result["refused"] = f"{dag}: {answer}"
                return
        for number, step in enumerate(case.history):
            result["at"] = step
            verb, *rest = step
            match verb:
                case "trigger":
                    dag, run, more = rest
                    body = {"dag_run_id": run, "logical_date": None} | more
                    self.note(result, number, self.system.click("POST", f"/dags/{dag}/dagRuns", body))
                    yield True  # what was seen of the runs is from before
                case "click":
                    self.note(result, number, self.system.click(*rest))
                    yield True
                case "open":
                    (self.gates / rest[0]).touch()
                case "look":
                    result[rest[0]] = rows.dump(self.system, case, self.began)
                case "still":
                    end = time.monotonic() + rest[0]
                    while time.monotonic() < end:
                        yield True
                case _:
                    while not self.is_so(verb, rest):
                        yield True
        # After its end is told a task still writes: rendered fields that it changed while it ran, for one.
        end = time.monotonic() + LAST_WORDS
        while self.system.is_ending(case.dags) and time.monotonic() < end:
            yield True

    def note(self, result: dict, number: int, answer: tuple[int, object]) -> None:
        status, said = answer
        result.setdefault("clicks", {})[str(number)] = status
        if status >= 500:
            raise RuntimeError(f"{self.system.name}: {status} {said}")
        if status >= 400:
            print(f"{self.system.name}: {result['at']}: {status} {str(said)[:300]}", file=sys.stderr)

    def is_so(self, verb: str, rest: list) -> bool:
        dag = rest[0]
        runs = self.states.get(dag, {})
        match verb:
            case "run":
                state = runs.get(rest[1])
                return state in FINISHED if rest[2] == "finished" else state == rest[2]
            case "runs":
                return len(runs) >= rest[1] and all(state in FINISHED for state in runs.values())
            case "task":
                found = self.instances(dag, rest[1], rest[2])
                return bool(found) and all(state == rest[3] for state, _ in found)
            case "tries":
                found = self.instances(dag, rest[1], rest[2])
                return bool(found) and all(state == "running" and tries == rest[3] for state, tries in found)
            case _:
                raise ValueError(f"no such step: {verb}")

    def instances(self, dag: str, run: str, task: str) -> list[tuple]:
        return self.system.database.query(
            "SELECT state, try_number FROM task_instance WHERE dag_id = %s AND run_id = %s AND task_id = %s", dag, run, task
        )

"""The same DAG files and the same history of clicks, once through real Airflow and once through modalflow; then the rows
are compared.

    tests/differential/run compare                          modalflow against all goldens that are committed
    tests/differential/run compare --only examples          … of one suite: examples, clicks, random
    tests/differential/run record --only clicks             record goldens anew from real Airflow, which takes its time
    tests/differential/run live --only random --seed 1 --count 50
                                                            both systems, one after the other, nothing is kept
    tests/differential/run live --only random --seed 1 --count 1000 --goldens target/differential
                                                            the full run: Airflow's results are kept in that folder as
                                                            they come, so that an interrupted run goes on where it was

A seed is one random DAG; `--seed 7 --count 1 --show` prints its file. A difference is printed as what modalflow has and
what Airflow has.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import zlib
from pathlib import Path

import clicks
import examples
import random_dags
from play import Case, Player
from rows import compare
from systems import SYSTEMS

HERE = Path(__file__).parent
SUITES = {"examples": examples, "clicks": clicks, "random": random_dags}
BATCH = 60


class Goldens:
    """What real Airflow made of each case of a suite: JSON lines, compressed. A changed case has none."""

    def __init__(self, path: Path):
        self.path = path
        self.results: dict[str, tuple[str, dict]] = {}
        if path.exists():
            for line in zlib.decompressobj().decompress(path.read_bytes()).splitlines():
                found = json.loads(line)
                self.results[found["case"]] = (found["digest"], found["result"])

    def of(self, case: Case) -> dict | None:
        digest, result = self.results.get(case.name, (None, None))
        return result if digest == case.digest() else None

    def put(self, case: Case, result: dict) -> None:
        self.results[case.name] = (case.digest(), json.loads(json.dumps(result)))

    def save(self) -> None:
        lines = [
            json.dumps({"case": name, "digest": digest, "result": result}, sort_keys=True, separators=(",", ":"))
            for name, (digest, result) in sorted(self.results.items())
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".new")
        partial.write_bytes(zlib.compress("\n".join(lines).encode(), 9))
        partial.rename(self.path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def play(system: str, suite, cases: list[Case], arguments, told=lambda case, result: None) -> dict[str, dict]:
    """Results of cases on a fresh system."""
    folder = Path(tempfile.mkdtemp(prefix="differential-")) / system
    began = time.monotonic()
    with SYSTEMS[system](folder, os.environ["MODALFLOW_TEST_DATABASE_URL"], arguments.keep) as running:
        files = suite.files(cases)
        running.take(files, {dag for case in cases for dag in case.dags})
        taken = time.monotonic()
        running.start()
        player = Player(running, patience=arguments.patience, at_once=arguments.at_once)
        player.prepare()
        started = time.monotonic()
        results = player.play(cases, told)
        ended = time.monotonic()
        say(
            f"{running.name}: {len(cases)} cases; files {taken - began:.1f} s, start {started - taken:.1f} s, "
            f"histories {ended - started:.1f} s"
        )
    return {name: json.loads(json.dumps(result)) for name, result in results.items()}


def record(suite, cases: list[Case], goldens: Goldens, arguments) -> None:
    """Airflow's results of the cases that have none yet, a batch in one environment."""
    missing = [case for case in cases if goldens.of(case) is None]
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        say(f"Airflow: {batch[0].name} to {batch[-1].name}, {len(missing) - start} to go")
        results = play("airflow", suite, batch, arguments)
        for case in batch:
            if wrong := results[case.name].keys() & {"refused", "stuck"}:
                say(f"Airflow: no golden of {case.name}: {[results[case.name][part] for part in wrong]}")
            else:
                goldens.put(case, results[case.name])
        goldens.save()


def judge(suite, cases: list[Case], goldens: Goldens, arguments) -> int:
    """Plays modalflow's side and prints each difference; the count of cases that are not as expected."""
    known = [case for case in cases if goldens.of(case) is not None]
    if missing := [case.name for case in cases if goldens.of(case) is None]:
        say(f"no golden for {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}: record it")
    wrong = len(missing)
    races = 0
    for start in range(0, len(known), BATCH):
        batch = known[start : start + BATCH]
        results = play("modalflow", suite, batch, arguments)
        for case in batch:
            golden = goldens.of(case)
            differences = compare(golden, results[case.name])
            has_come_to_an_end = not results[case.name].keys() & {"stuck", "refused"}
            if suite.is_race(case, golden) and has_come_to_an_end:
                races += 1
                continue
            not_yet = suite.NOT_YET.get(case.name)
            if not_yet and not differences:
                print(f"{case.name}: is as in Airflow now; take it off the list NOT_YET ({not_yet})")
                wrong += 1
            elif differences and not not_yet:
                print(f"{case.name}: {len(differences)} differences")
                for line in differences[: arguments.lines]:
                    print(f"    {line}")
                wrong += 1
    print(f"{len(known) - races} cases compared, {wrong} not as expected; {races} left out, whose end Airflow leaves to chance")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests/differential/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["compare", "record", "live"])
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES), help="suites (default: all)")
    parser.add_argument("--case", nargs="+", help="only these cases")
    parser.add_argument("--seed", type=int, default=random_dags.FIRST, help="the first random DAG")
    parser.add_argument("--count", type=int, default=random_dags.QUICK, help="how many random DAGs")
    parser.add_argument("--goldens", type=Path, default=HERE / "goldens", help="where Airflow's results lie")
    parser.add_argument("--patience", type=float, default=150, help="seconds that a history may take (default 150)")
    parser.add_argument("--at-once", type=int, default=16, help="histories played at the same time (default 16)")
    parser.add_argument("--lines", type=int, default=30, help="differences printed of a case (default 30)")
    parser.add_argument("--keep", action="store_true", help="keep databases, environments and logs")
    parser.add_argument("--again", action="store_true", help="record also what has a golden")
    parser.add_argument("--show", action="store_true", help="print the cases instead of playing them")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process and no database is left
    wrong = 0
    for name in arguments.only:
        suite = SUITES[name]
        cases = suite.cases(arguments.seed, arguments.count) if name == "random" else suite.cases()
        cases = [case for case in cases if not arguments.case or case.name in arguments.case]
        if arguments.show:
            for case in cases:
                print(f"# {case.name}\n{case.source or ''}")
                print(*(f"# {json.dumps(step)}" for step in case.history), sep="\n")
            continue
        say(f"==> {name}: {len(cases)} cases" + (f", seeds {arguments.seed} to {arguments.seed + arguments.count - 1}" if name == "random" else ""))
        goldens = Goldens(arguments.goldens / f"{name}.jsonl.zlib")
        if arguments.again or (arguments.verb == "live" and arguments.goldens == HERE / "goldens"):
            for case in cases:
                goldens.results.pop(case.name, None)
        if arguments.verb in ("record", "live"):
            record(suite, cases, goldens, arguments)
        if arguments.verb in ("compare", "live"):
            wrong += judge(suite, cases, goldens, arguments)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

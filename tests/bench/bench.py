"""Measures modalflow and real Airflow on this machine, one after the other, in the same way.

Started by tests/bench/run, which brings the host, a Python with Airflow, and a Postgres. Every latency and rate is read
from task_instance and dag_run (and, where it says so, from inside the tasks); CPU and memory are the kernel's, for the
process tree of each role and of Postgres. Writes all single figures as JSON and prints a table in Markdown.

A run of a workload: its DAGs are paused, their runs made, and 2.5 s later "go" lets all of them begin.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

import accounting
import report
import scheduling
from database import Database, figures
from systems import ORPHANS, SYSTEMS, Modalflow, System
from workloads import WORKLOADS, Workload, write_usual, write_workloads


class Bench:
    """Collects figures: {"system", "what", "figure", "value"}, a row each, none thrown away."""

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.arguments, self.folder = arguments, folder
        self.rows: list[dict] = []
        self.names = 0
        self.postgres: int | None = None

    def add(self, system: System, what: str, **values: float) -> None:
        for figure, value in values.items():
            self.rows.append({"system": system.name, "what": what, "figure": figure, "value": value})
        text = ", ".join(f"{figure} {value:.4g}" for figure, value in values.items())
        print(f"    {system.name}: {what}: {text}", file=sys.stderr, flush=True)

    def system(self, name: str, label: str) -> System:
        """A system with an empty database of its own."""
        self.names += 1
        database = Database(os.environ["BENCH_DATABASE_URL"], f"bench_{self.names}")
        self.postgres = accounting.parent(database.backend())
        return SYSTEMS[name](self.folder / f"{self.names}-{name}-{label}", database, label)

    def cpu(self, system: System) -> dict[str, float]:
        """CPU seconds so far, of each role, of Postgres, and of processes whose parents are gone."""
        found = {role: accounting.cpu(process) for role, process in system.roots().items()}
        orphans = ORPHANS.cpu(system.children())
        return found | {"postgres": accounting.cpu(self.postgres), "orphans": orphans}

    # ------------------------------------------------------------------------------------------ the experiments

    def workloads(self, name: str) -> None:
        """Hand-over, rate and CPU of each workload; then the memory of every process."""
        trace = self.folder / f"trace-{name}"
        folder = self.folder / f"workloads-{name}"
        count = len(write_workloads(folder, trace))
        with self.system(name, "workloads") as system:
            system.take(folder, count)
            system.start()
            time.sleep(5)
            self.run_workload(system, WORKLOADS["200 wide"], "warm-up", trace)
            for workload in WORKLOADS.values():
                if workload.name in system.skip or workload.name not in self.arguments.workloads:
                    continue
                for number in range(self.arguments.runs):
                    self.run_workload(system, workload, f"{workload.name} {number}".replace(" ", "-"), trace)
            self.memory(system, "after the workloads")

    def run_workload(self, system: System, workload: Workload, run_id: str, trace: Path) -> None:
        system.database.pause(workload.dag_ids, True)
        for dag_id in workload.dag_ids:
            system.trigger(dag_id, run_id)
        time.sleep(2.5)  # whoever polls is back at its idle rhythm
        cpu, machine, transactions = self.cpu(system), accounting.machine(), system.database.transactions()
        go = system.go(workload.dag_ids)
        system.database.wait_for_runs(run_id, len(workload.dag_ids), self.arguments.patience)
        spent = {role: seconds - cpu[role] for role, seconds in self.cpu(system).items()}
        other = accounting.machine() - machine - sum(spent.values())
        transactions = system.database.transactions() - transactions
        if run_id == "warm-up":
            return
        self.add(system, workload.name, **figures(system.database, workload, run_id, go, trace))
        self.add(system, workload.name, **{f"cpu of {role}": seconds for role, seconds in spent.items()})
        self.add(
            system,
            workload.name,
            **{
                "cpu per task": sum(spent.values()) / workload.tasks,
                "transactions per task": transactions / workload.tasks,
                "other work on the machine": other,
            },
        )

    def idle(self, name: str) -> None:
        """CPU a minute when nothing is due, with one DAG and with 200, and memory; for us also a tick by itself."""
        for count in (1, 200):
            folder = self.folder / f"idle-{name}-{count}"
            write_usual(folder, count)
            with self.system(name, f"idle-{count}") as system:
                system.take(folder, count)
                system.database.query("UPDATE dag SET is_paused = false")
                if isinstance(system, Modalflow):
                    self.ticks(system, count)
                system.start(everything=True)
                time.sleep(self.arguments.settle)
                before, transactions, began = self.cpu(system), system.database.transactions(), time.monotonic()
                time.sleep(self.arguments.window)
                minutes = (time.monotonic() - began) / 60
                spent = {role: (seconds - before[role]) / minutes for role, seconds in self.cpu(system).items()}
                what = f"idle, {count} DAGs"
                self.add(system, what, **{f"cpu a minute of {role}": seconds for role, seconds in spent.items()})
                transactions = (system.database.transactions() - transactions) / minutes
                self.add(system, what, **{"cpu a minute": sum(spent.values()), "transactions a minute": transactions})
                self.memory(system, what)
                runs = system.database.query("SELECT count(*) FROM dag_run")[0][0]
                assert runs == 0, "nothing may have been due"

    def ticks(self, system: Modalflow, count: int) -> None:
        """`modalflow-host tick` with nothing to do: start, look, exit."""
        system.run("tick")
        for _ in range(10):
            postgres = accounting.cpu(self.postgres)
            cost = system.run("tick")[1]
            postgres = accounting.cpu(self.postgres) - postgres
            self.add(system, f"idle tick, {count} DAGs", wall=cost.wall, cpu=cost.cpu, **{"cpu of postgres": postgres})

    def parse(self, name: str) -> None:
        """From 200 files and an empty database to all of them stored; for us also the same again, unchanged."""
        folder = self.folder / f"parse-{name}"
        write_usual(folder, 200)
        for _ in range(self.arguments.runs):
            with self.system(name, "parse") as system:
                self.take(system, "parse 200 files", folder)
                if isinstance(system, Modalflow):
                    self.take(system, "parse 200 unchanged files", folder)

    def take(self, system: System, what: str, folder: Path) -> None:
        postgres = accounting.cpu(self.postgres)
        cost = system.take(folder, 200)
        postgres = accounting.cpu(self.postgres) - postgres
        self.add(system, what, wall=cost.wall, cpu=cost.cpu, **{"cpu of postgres": postgres})

    def scheduling(self, name: str) -> None:
        """What the scheduler does without workers."""
        scheduling.scheduling(self, name)

    def memory(self, system: System, what: str) -> None:
        for role, process in system.roots().items():
            for process_name, (processes, mebibytes) in accounting.memory(process).items():
                self.add(system, what, **{f"memory of {role}: {process_name} x{processes}": mebibytes})
            total = sum(mebibytes for _, mebibytes in accounting.memory(process).values())
            self.add(system, what, **{f"memory of {role}": total})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests/bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parts = ["workloads", "idle", "parse", "scheduling"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--window", type=float, default=60, help="seconds that idleness is watched for (default 60)")
    parser.add_argument("--settle", type=float, default=45, help="seconds before that (default 45)")
    parser.add_argument("--patience", type=float, default=600, help="seconds that a workload may take (default 600)")
    parser.add_argument(
        "--history", type=int, default=0, help="finished task instances beside which a tick is measured too (10000000: 10 minutes)"
    )
    parser.add_argument("--explain", type=Path, metavar="FILE", help="with --history: write each statement of such a tick and its plan there")
    parser.add_argument("--out", type=Path, default=Path("target/bench.json"), help="where the single figures go")
    parser.add_argument("--keep", action="store_true", help="keep the working folder with its logs")
    parser.add_argument("--report", type=Path, help="measure nothing, print the table of this file")
    arguments = parser.parse_args()
    if arguments.report:
        print(report.table(json.loads(arguments.report.read_text())))
        return
    if arguments.explain and not arguments.history:
        parser.error("--explain shows a tick beside a history: give --history too")
    folder = Path(tempfile.mkdtemp(prefix="modalflow-bench-"))
    bench = Bench(arguments, folder)
    try:
        for experiment in arguments.only:
            for name in arguments.systems:
                print(f"\n==> {experiment}: {name}", file=sys.stderr, flush=True)
                getattr(bench, experiment)(name)
    except BaseException:
        print(f"the logs are in {folder}", file=sys.stderr)
        arguments.keep = True
        raise
    finally:
        result = {"machine": describe_machine(), "rows": bench.rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        if not arguments.keep:
            shutil.rmtree(folder)
    print(report.table(result))


def describe_machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    return {
        "cores": os.cpu_count(),
        "processor": processor[0] if processor else platform.machine(),
        "memory_gib": round(memory),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


if __name__ == "__main__":
    main()

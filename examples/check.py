#!/usr/bin/env python3
"""Compares how runs ended with examples/expected.json.

    check.py --list      the dag_ids there, one a line
    check.py RUN_ID      looks at that run of each; exit code 1 if one ended otherwise

It asks `modalflow-host` (on PATH; the environment comes from MODALFLOW_ENV) and needs Python's library alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXPECTED = json.loads((Path(__file__).resolve().parent / "expected.json").read_text())


def main(argument: str) -> int:
    if argument == "--list":
        print("\n".join(EXPECTED))
        return 0
    wrong = 0
    for dag_id, expected in EXPECTED.items():
        differences = compare(dag_id, argument, expected)
        wrong += bool(differences)
        tasks = sum(task.get("instances", 1) for task in expected["tasks"].values())
        verdict = "NOT AS EXPECTED" if differences else f"{expected['state']}, as it should be"
        print(f"{dag_id:<20} {tasks:>2} tasks  {verdict}")
        for difference in differences:
            print(f"    {difference}")
    return 1 if wrong else 0


def compare(dag_id: str, run_id: str, expected: dict) -> list[str]:
    """One sentence for each thing that is otherwise than expected."""
    run = ["--dag-id", dag_id, "--run-id", run_id]
    shown = ask("runs", "show", *run, "--output", "json")
    differences = []
    if shown["run"]["state"] != expected["state"]:
        differences.append(f"the run is {shown['run']['state']}, expected {expected['state']}")

    found: dict[str, list[dict]] = {}
    for task in shown["task_instances"]:
        found.setdefault(task["task_id"], []).append(task)
    for task_id in found.keys() - expected["tasks"].keys():
        differences.append(f"{task_id} was not expected at all")
    for task_id, task in expected["tasks"].items():
        instances = found.get(task_id, [])
        if len(instances) != task.get("instances", 1):
            differences.append(f"{task_id} has {len(instances)} instances, expected {task.get('instances', 1)}")
        for instance in instances:
            for fact in ("state", "try_number"):
                if fact in task and instance[fact] != task[fact]:
                    differences.append(f"{task_id}: {fact} is {instance[fact]}, expected {task[fact]}")

    for xcom in expected["xcoms"]:
        which = ["--task-id", xcom["task_id"], "--key", xcom["key"]]
        if "map_index" in xcom:
            which += ["--map-index", str(xcom["map_index"])]
        try:
            value = ask("xcom", "get", *run, *which)
        except RuntimeError as error:
            differences.append(f"{xcom['task_id']}: no XCom {xcom['key']}: {error}")
            continue
        if value != xcom["value"]:
            differences.append(f"{xcom['task_id']}: {xcom['key']} is {value!r}, expected {xcom['value']!r}")
    return differences


def ask(*command: str):
    """What modalflow-host answers, read as JSON."""
    done = subprocess.run(["modalflow-host", *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))

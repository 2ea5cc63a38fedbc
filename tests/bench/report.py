"""The table for the README: medians of the runs, a column for each system."""

from __future__ import annotations

import statistics

# what, figure, heading, unit, factor from seconds (or MiB) to that unit, digits
LINES = [
    ("chain of 20", "hand-over, rows, p50", "Hand-over in a chain of 20, p50", "ms", 1000, 0),
    ("chain of 20", "hand-over, rows, p95", "p95", "ms", 1000, 0),
    ("chain of 20", "hand-over, inside, p50", "seen from inside the tasks, p50", "ms", 1000, 0),
    ("chain of 20", "hand-over, inside, p95", "p95", "ms", 1000, 0),
    ("chain of 200", "hand-over, rows, p50", "Hand-over in a chain of 200, p50", "ms", 1000, 0),
    ("chain of 200", "hand-over, rows, p95", "p95", "ms", 1000, 0),
    ("chain of 200", "hand-over, inside, p50", "seen from inside the tasks, p50", "ms", 1000, 0),
    ("chain of 200", "hand-over, inside, p95", "p95", "ms", 1000, 0),
    ("200 mapped", "tasks per second", "200 mapped tasks", "per second", 1, 1),
    ("200 wide", "tasks per second", "200 tasks side by side", "per second", 1, 1),
    ("50 DAGs of 10", "tasks per second", "50 DAGs of 10 tasks", "per second", 1, 1),
    ("200 mapped", "cpu per task", "CPU of everything per mapped task", "ms", 1000, 0),
    ("200 wide", "cpu per task", "the same, side by side", "ms", 1000, 0),
    ("50 DAGs of 10", "cpu per task", "the same, 50 DAGs", "ms", 1000, 0),
    ("chain of 20", "last task to run's end", "Last task's end to its run's end", "ms", 1000, 0),
    ("idle tick, 1 DAGs", "cpu", "An idle tick as a command: CPU", "ms", 1000, 0),
    ("idle tick, 1 DAGs", "wall", "on the clock", "ms", 1000, 0),
    ("idle, 1 DAGs", "cpu a minute", "Idle, 1 DAG: CPU of everything", "s a minute", 1, 2),
    ("idle, 200 DAGs", "cpu a minute", "Idle, 200 DAGs: CPU of everything", "s a minute", 1, 2),
    ("idle, 1 DAGs", "memory", "Idle, 1 DAG: memory (PSS), without Postgres", "MiB", 1, 0),
    ("after the workloads", "memory", "After the workloads: memory (PSS), without Postgres", "MiB", 1, 0),
    ("empty_chain", "seconds", "1,000 EmptyOperators in a chain", "s", 1, 2),
    ("empty_wide", "seconds", "5,000 EmptyOperators, 4,998 of them side by side", "s", 1, 2),
    ("10,000 mapped", "seconds", "10,000 mapped task instances: made, expanded, scheduled", "s", 1, 2),
    ("10 due of 10 DAGs", "seconds", "A tick over 10 DAGs, all due: on the clock", "ms", 1000, 0),
    ("10 due of 1,000 DAGs", "seconds", "the same among 1,000 DAGs", "ms", 1000, 0),
    ("10 due of 10 DAGs", "cpu", "A tick over 10 DAGs, all due: CPU", "ms", 1000, 0),
    ("10 due of 1,000 DAGs", "cpu", "the same among 1,000 DAGs", "ms", 1000, 0),
    ("parse 200 files", "wall", "200 DAG files, from empty to stored", "s", 1, 1),
    ("parse 200 files", "cpu", "CPU of it", "s", 1, 1),
    ("parse 200 unchanged files", "wall", "The same files again, unchanged", "s", 1, 2),
    ("parse 200 unchanged files", "cpu", "CPU of it", "s", 1, 2),
]


def table(result: dict) -> str:
    """All lines of which some system has a figure."""
    machine, rows = result["machine"], with_totals(result["rows"])
    systems = list(dict.fromkeys(row["system"] for row in rows))
    values: dict[tuple, list[float]] = {}
    for row in rows:
        values.setdefault((row["what"], row["figure"], row["system"]), []).append(row["value"])
    lines = [f"| | {' | '.join(systems)} |", f"|---|{'---:|' * len(systems)}"]
    after = sorted({what for what, _, _ in values if what.startswith("10 due after")})
    history = [
        (what, figure, f"the same {what.removeprefix('10 due ')}: {word}", "ms", 1000, 0)
        for what in after
        for figure, word in (("seconds", "on the clock"), ("cpu", "CPU"))
    ]
    for what, figure, heading, unit, factor, digits in LINES + history:
        cells = []
        for system in systems:
            found = values.get((what, figure, system))
            cells.append(f"{statistics.median(found) * factor:,.{digits}f}" if found else "–")
        if any(cell != "–" for cell in cells):
            lines.append(f"| {heading} ({unit}) | {' | '.join(cells)} |")
    quiet = [
        other / (seconds * machine["cores"])
        for key, shares in values.items()
        if key[1] == "other work on the machine"
        for other, seconds in zip(shares, values[(key[0], "seconds", key[2])], strict=True)
    ]
    other = f" Other work took {statistics.median(quiet):.0%} of the cores meanwhile." if quiet else ""
    place = f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB"
    return "\n".join([*lines, "", f"Medians, measured on {machine['date']}: {place}, Python {machine['python']}.{other}"])


def with_totals(rows: list[dict]) -> list[dict]:
    """Adds the memory of all roles together."""
    totals: dict[tuple, float] = {}
    for row in rows:
        if row["figure"].startswith("memory of ") and ":" not in row["figure"]:
            key = (row["system"], row["what"])
            totals[key] = totals.get(key, 0) + row["value"]
    extra = [{"system": s, "what": w, "figure": "memory", "value": value} for (s, w), value in totals.items()]
    return rows + extra

"""What Postgres does in a tick: every statement of one tick with its plan and the rows it read, as Markdown.

Needs the server's own log and its module auto_explain (Debian's Postgres has it).
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path

from database import Database

SETTINGS = {
    "session_preload_libraries": "'auto_explain'",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
}
PLAN = re.compile(r"LOG:  duration: ([\d.]+) ms  plan:\n((?:\t.*\n)+)")


@contextmanager
def plans(database: Database, found: list[tuple[float, str, str]]):
    """Adds (milliseconds, statement, plan) of each statement that sessions begun inside run on this database."""
    log = Path(os.environ["BENCH_POSTGRES_LOG"])
    name = database.query("SELECT current_database()")[0][0]
    for setting, value in SETTINGS.items():
        database.query(f"ALTER DATABASE {name} SET {setting} = {value}")
    start = log.stat().st_size
    try:
        yield
    finally:
        for setting in SETTINGS:
            database.query(f"ALTER DATABASE {name} RESET {setting}")
        with log.open(errors="replace") as file:
            file.seek(start)
            for milliseconds, text in PLAN.findall(file.read()):
                statement, plan = divide(text)
                found.append((float(milliseconds), statement, plan))


def divide(text: str) -> tuple[str, str]:
    """The statement and the plan of one entry; the plan begins at its first node with a cost."""
    lines = [line[1:] for line in text.splitlines()]
    first = next(number for number, line in enumerate(lines) if "(cost=" in line)
    statement = "\n".join(lines[:first]).removeprefix("Query Text: ")
    return re.sub(r"\s+", " ", statement).strip(), "\n".join(lines[first:])


def page(what: str, found: list[tuple[float, str, str]]) -> str:
    """Each statement once, with its dearest execution."""
    if not found:
        raise SystemExit("the server's log has no plans: is auto_explain there, and is the log in English?")
    dearest: dict[str, tuple[float, str, int]] = {}
    for milliseconds, statement, plan in found:
        known = dearest.get(statement, (0.0, "", 0))
        dearest[statement] = (*max((milliseconds, plan), known[:2]), known[2] + 1)
    lines = [
        "# What a tick asks of Postgres",
        "",
        f"{what}. Written by `tests/bench/run --explain` from the server's own log (auto_explain): every statement of that tick, in the order it was first run, with the plan of its dearest execution.",
        "",
        f"{len(dearest)} statements, {sum(entry[2] for entry in dearest.values())} executions, {sum(entry[0] for entry in found):.1f} ms together (with the cost of measuring).",
    ]
    for statement, (milliseconds, plan, times) in dearest.items():
        often = "once" if times == 1 else f"{times} times"
        lines += ["", f"## {heading(statement)}", "", f"Run {often}, {milliseconds:.2f} ms.", "", "```sql", statement, "```", "```", plan, "```"]
    return "\n".join(lines) + "\n"


def heading(statement: str) -> str:
    """The verb and the first table."""
    verb = statement.split(" ", 1)[0].upper()
    table = re.search(r"\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?([a-z_.]+)", statement, re.IGNORECASE)
    return f"{verb} {table[1]}" if table else verb

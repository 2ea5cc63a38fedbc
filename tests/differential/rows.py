"""What a history left in Airflow's tables, with ids, times and places named away, so that two systems can be compared;
and how two such results differ, in words.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import PurePath

from psycopg2.extras import RealDictCursor

# Each question gets the DAGs' ids. Its rows are compared as a whole; what is null is left out.
TABLES = {
    "dag": "SELECT * FROM dag WHERE dag_id = ANY(%(dags)s)",
    "dag_run": """
        SELECT r.*, v.version_number AS created_version, n.content AS note
        FROM dag_run r LEFT JOIN dag_version v ON v.id = r.created_dag_version_id
        LEFT JOIN dag_run_note n ON n.dag_run_id = r.id WHERE r.dag_id = ANY(%(dags)s)""",
    "task_instance": """
        SELECT t.*, v.version_number AS version, encode(t.executor_config, 'hex') AS executor_config, n.content AS note
        FROM task_instance t LEFT JOIN dag_version v ON v.id = t.dag_version_id
        LEFT JOIN task_instance_note n ON n.ti_id = t.id WHERE t.dag_id = ANY(%(dags)s)""",
    "task_instance_history": """
        SELECT t.*, v.version_number AS version, encode(t.executor_config, 'hex') AS executor_config
        FROM task_instance_history t LEFT JOIN dag_version v ON v.id = t.dag_version_id
        WHERE t.dag_id = ANY(%(dags)s)""",
    "task_reschedule": """
        SELECT t.dag_id, t.run_id, t.task_id, t.map_index, count(*) AS pokes
        FROM task_reschedule s JOIN task_instance t ON t.id = s.ti_id
        WHERE t.dag_id = ANY(%(dags)s) GROUP BY 1, 2, 3, 4""",
    "xcom": "SELECT * FROM xcom WHERE dag_id = ANY(%(dags)s)",
    "task_map": "SELECT * FROM task_map WHERE dag_id = ANY(%(dags)s)",
    "rendered": "SELECT * FROM rendered_task_instance_fields WHERE dag_id = ANY(%(dags)s)",
    "asset_event": """
        SELECT e.source_dag_id AS dag_id, e.source_run_id AS run_id, e.source_task_id AS task_id,
               e.source_map_index AS map_index, a.name, a.uri, e.extra, e.partition_key
        FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE e.source_dag_id = ANY(%(dags)s)""",
    "asset_dag_run_queue": """
        SELECT q.target_dag_id AS dag_id, a.name, a.uri
        FROM asset_dag_run_queue q JOIN asset a ON a.id = q.asset_id WHERE q.target_dag_id = ANY(%(dags)s)""",
    "dagrun_asset_event": """
        SELECT r.dag_id, r.run_id, e.source_dag_id, e.source_run_id, e.source_task_id, e.source_map_index
        FROM dagrun_asset_event l JOIN dag_run r ON r.id = l.dag_run_id JOIN asset_event e ON e.id = l.event_id
        WHERE r.dag_id = ANY(%(dags)s)""",
    "asset_partition_dag_run": """
        SELECT p.target_dag_id AS dag_id, r.run_id, p.partition_key AS key, p.partition_date, p.rollup_fingerprint
        FROM asset_partition_dag_run p LEFT JOIN dag_run r ON r.id = p.created_dag_run_id
        WHERE p.target_dag_id = ANY(%(dags)s)""",
    "partitioned_asset_key_log": """
        SELECT l.target_dag_id AS dag_id, l.target_partition_key AS key, a.name, a.uri, l.source_partition_key,
               e.source_run_id
        FROM partitioned_asset_key_log l JOIN asset a ON a.id = l.asset_id
        LEFT JOIN asset_event e ON e.id = l.asset_event_id WHERE l.target_dag_id = ANY(%(dags)s)""",
    "dag_warning": "SELECT dag_id, warning_type, message FROM dag_warning WHERE dag_id = ANY(%(dags)s)",
    "log": """
        SELECT dag_id, run_id, task_id, map_index, try_number, event, owner FROM log
        WHERE dag_id = ANY(%(dags)s) AND event NOT LIKE 'cli%%' AND event <> 'trigger dag run'""",
}

# Surrogate keys, and what says how or when something was done rather than what.
IGNORED = {
    "id", "dag_run_id", "task_instance_id", "trigger_id", "created_dag_version_id", "dag_version_id", "log_template_id",
    "updated_at", "created_at", "timestamp", "hostname", "unixname", "context_carrier", "k8s_pod_yaml",
    "last_heartbeat_at", "last_parsed_time", "last_parse_duration", "last_expired", "fileloc", "relative_fileloc",
    "bundle_name", "last_scheduling_decision", "creating_job_id", "scheduled_by_job_id", "external_executor_id",
}  # fmt: skip
# Only whether there is one.
PRESENCE = {"pid", "queued_by_job_id", "duration"}
KEY = ("dag_id", "run_id", "task_id", "map_index", "try_number", "key", "event", "name", "uri")

TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?")
UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
ASSET_ID = re.compile(r'"id": \d+, |, "id": \d+')
SUFFIX = re.compile(r"((?:manual|asset_triggered|scheduled|backfill|operator_triggered)__<time>)_[A-Za-z0-9]{8}\b")
PARTITION_SUFFIX = re.compile(r"^(scheduled__.+__.+)__[A-Za-z0-9]{8}$")


class Namer:
    """Names away what no two runs of a history share."""

    def __init__(self, began: dt.datetime, places: dict[str, str]):
        self.began = began - dt.timedelta(days=2)
        self.places = sorted(places.items(), key=lambda place: -len(place[0]))

    def time(self, value: dt.datetime) -> str:
        value = value if value.tzinfo else value.replace(tzinfo=dt.timezone.utc)
        return "<time>" if value > self.began else value.astimezone(dt.timezone.utc).isoformat()

    def text(self, value: str) -> str:
        for place, name in self.places:
            value = value.replace(place, name)

        def recent(match: re.Match) -> str:
            try:
                return self.time(dt.datetime.fromisoformat(match[0].replace("Z", "+00:00")))
            except ValueError:
                return match[0]

        value = PARTITION_SUFFIX.sub(r"\1__<random>", SUFFIX.sub(r"\1_<random>", TIME.sub(recent, value)))
        return UUID.sub("<uuid>", value)

    def value(self, value):
        match value:
            case str():
                return self.text(value)
            case dt.datetime():
                return self.time(value)
            case dict():
                return {self.text(key): self.value(item) for key, item in value.items()}
            case list():
                return [self.value(item) for item in value]
            case memoryview() | bytes():
                return bytes(value).hex()
            case PurePath():
                return self.text(str(value))
            case _:
                return value


def dump(system, case, began: dt.datetime) -> dict[str, list[dict]]:
    """All rows of a case's DAGs, or of those of its runs that are to be compared."""
    namer, runs = Namer(began, system.places()), case.runs
    result = {}
    with system.database.connection.cursor(cursor_factory=RealDictCursor) as cursor:
        for table, question in TABLES.items():
            cursor.execute(question, {"dags": case.dags})
            rows = []
            for found in cursor.fetchall():
                row = dict(found)
                if runs is not None and (table == "dag" or row.get("run_id") not in (None, *runs)):
                    continue
                if table == "xcom":
                    row["value"] = system.value(row)
                    if row["key"] == "skipmixin_key":
                        row["value"] = {verb: sorted(tasks) for verb, tasks in row["value"].items()}  # Airflow writes a set
                    if row["task_id"] in case.chance:
                        row["value"] = "<chance>"
                if table == "dag" and row["asset_expression"]:
                    row["asset_expression"] = json.loads(ASSET_ID.sub("", json.dumps(row["asset_expression"])))
                rows.append({name: as_compared(namer, name, value) for name, value in row.items() if is_compared(name, value)})
            result[table] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    return {table: rows for table, rows in result.items() if rows}


def is_compared(name: str, value) -> bool:
    return value is not None and name not in IGNORED


def as_compared(namer: Namer, name: str, value):
    return True if name in PRESENCE else namer.value(value)


def compare(golden: dict, ours: dict) -> list[str]:
    """What is different, a line each; empty when all is equal."""
    lines = []
    for part in sorted(golden.keys() | ours.keys()):
        before, after = golden.get(part), ours.get(part)
        if before == after:
            continue
        if part in ("clicks", "stuck", "refused"):
            lines.append(f"{part}: {before} became {after}")
            continue
        for table in [*TABLES]:
            lines += compare_table(f"{part}.{table}", (before or {}).get(table, []), (after or {}).get(table, []))
    return lines


def as_airflow_should(row: dict, ours: list[dict]) -> dict:
    """Airflow leaves the display name of all mapped instances but the first empty, and shows the task's id in its place."""
    if row.get("map_index", -1) > 0 and "task_display_name" not in row and "state" in row:
        names = {other.get("task_display_name") for other in ours if other.get("task_id") == row["task_id"]} - {None}
        return row | ({"task_display_name": names.pop()} if len(names) == 1 else {})
    return row


def compare_table(name: str, golden: list[dict], ours: list[dict]) -> list[str]:
    missing, more = [as_airflow_should(row, ours) for row in golden], []
    for row in ours:
        if row in missing:
            missing.remove(row)
        else:
            more.append(row)
    lines = []
    for row in missing:
        twin = next((other for other in more if all(row.get(key) == other.get(key) for key in KEY)), None)
        twin = twin or next((other for other in more if all(row.get(key) == other.get(key) for key in KEY[:4])), None)
        if twin is None:
            lines.append(f"{name}: {title(row)}: only Airflow has {short(row)}")
            continue
        more.remove(twin)
        for column in sorted(row.keys() | twin.keys()):
            if row.get(column) != twin.get(column):
                lines.append(f"{name}: {title(row)}: {column} is {twin.get(column)!r}, in Airflow {row.get(column)!r}")
    return lines + [f"{name}: {title(row)}: Airflow has no {short(row)}" for row in more]


def title(row: dict) -> str:
    index = row.get("map_index", -1)
    parts = [row.get("dag_id"), row.get("run_id"), row.get("task_id") and row["task_id"] + (f"[{index}]" if index >= 0 else "")]
    return " ".join(part for part in parts if part)


def short(row: dict) -> str:
    rest = {key: value for key, value in row.items() if key not in KEY[:4]}
    return json.dumps(rest, sort_keys=True, default=str)[:200]

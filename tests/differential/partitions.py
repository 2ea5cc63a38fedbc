"""Histories of partitions: runs with keys, mappers that roll up and fan out, keys that no mapper knows."""

from __future__ import annotations

import clicks
from play import Case

FILE = "partitions.py"
HEAD = clicks.HEAD + '''
from airflow.sdk import (
    Asset, ChainMapper, CronPartitionTimetable, DayWindow, FanOutMapper, IdentityMapper, MinimumCount,
    PartitionedAssetTimetable, PartitionedAtRuntime, ProductMapper, RollupMapper, StartOfDayMapper, StartOfHourMapper,
    StartOfMonthMapper, StartOfQuarterMapper, StartOfWeekMapper, WeekWindow, task,
)


@task
def tell(dag_run=None):
    return [dag_run.partition_key, str(dag_run.partition_date), str(dag_run.logical_date)]

'''


def keyed(dag: str, *keys: str | None) -> list[list]:
    """A run of each key, one after the other."""
    steps = []
    for number, key in enumerate(keys):
        run = f"run_{number}"
        steps += [["trigger", dag, run, {"partition_key": key} if key else {}], ["run", dag, run, "finished"]]
    return steps


def case(name: str, dags: list[str], history: list[list], source: str) -> Case:
    return Case(name, dags, history, source=source)


CASES = [
    # Scheduled: the day before in Tokyo, until the DAG ends.
    case(
        "cron_partitions",
        ["cron_partitions"],
        [["runs", "cron_partitions", 4], ["still", 1]],
        """
with DAG(
    "cron_partitions",
    schedule=CronPartitionTimetable("0 0 * * *", timezone="Asia/Tokyo", run_offset=-1, key_format="%Y-%m-%d_%a"),
    start_date=dt.datetime(2026, 1, 5), end_date=dt.datetime(2026, 1, 8, 20), catchup=True,
):
    Work(task_id="a")
""",
    ),
    # By hand: a month of the timetable's, and two that are none.
    case(
        "cron_partition_by_hand",
        ["cron_partition_by_hand", "cron_partition_follows"],
        [
            *keyed("cron_partition_by_hand", "2026-01", "2026-02"),
            ["trigger", "cron_partition_by_hand", "odd", {"partition_key": "2026-13"}],
            ["trigger", "cron_partition_follows", "blank", {"partition_key": " "}],
            ["runs", "cron_partition_follows", 2],
        ],
        """
monthly = Asset(name="monthly", uri="s3://partitions/monthly")
with DAG(
    "cron_partition_by_hand", schedule=CronPartitionTimetable("0 0 1 1 *", timezone="Europe/Zurich", key_format="%Y-%m"),
    start_date=dt.datetime(2040, 1, 1), catchup=False,
):
    Work(task_id="a", outlets=[monthly])
with DAG("cron_partition_follows", schedule=PartitionedAssetTimetable(assets=monthly), catchup=False):
    tell()
""",
    ),
    # Three hours make a day, each day joins a week; an hour more waits, and what is no hour is refused.
    case(
        "roll_up",
        ["roll_up_hours", "roll_up_days", "roll_up_weeks", "roll_up_all_hours"],
        [
            *keyed("roll_up_hours", "2026-01-05T00:00:00", "2026-01-05T07:00:00", "2026-01-05T23:00:00"),
            ["runs", "roll_up_days", 1],
            ["runs", "roll_up_weeks", 1],
            ["trigger", "roll_up_hours", "more", {"partition_key": "2026-01-05T05:00:00"}],
            ["run", "roll_up_hours", "more", "finished"],
            ["trigger", "roll_up_hours", "odd", {"partition_key": "yesterday"}],
            ["run", "roll_up_hours", "odd", "finished"],
            ["trigger", "roll_up_hours", "none", {}],
            ["run", "roll_up_hours", "none", "finished"],
            ["still", 1],
        ],
        """
hours = Asset(name="hours", uri="s3://partitions/hours")
days = Asset(name="days", uri="s3://partitions/days")
with DAG("roll_up_hours", schedule=PartitionedAtRuntime()):
    Work(task_id="a", outlets=[hours])
with DAG(
    "roll_up_days", catchup=False,
    schedule=PartitionedAssetTimetable(assets=hours, default_partition_mapper=RollupMapper(
        upstream_mapper=StartOfDayMapper(), window=DayWindow(), wait_policy=MinimumCount(3))),
):
    tell() >> Work(task_id="a", outlets=[days])
with DAG(
    "roll_up_weeks", catchup=False,
    schedule=PartitionedAssetTimetable(
        assets=Asset.ref(name="days"), default_partition_mapper=StartOfWeekMapper(input_format="%Y-%m-%d")),
):
    tell()
with DAG(
    "roll_up_all_hours", catchup=False,
    schedule=PartitionedAssetTimetable(assets=hours, default_partition_mapper=RollupMapper(
        upstream_mapper=StartOfDayMapper(timezone="America/New_York"), window=DayWindow())),
):
    tell()
""",
    ),
    # A week's key becomes seven days, or is too much.
    case(
        "fan_out",
        ["fan_out_week", "fan_out_days", "fan_out_few"],
        [*keyed("fan_out_week", "2026-01-07T12:00:00"), ["runs", "fan_out_days", 7], ["still", 1]],
        """
week = Asset(name="week", uri="s3://partitions/week")
with DAG("fan_out_week", schedule=PartitionedAtRuntime()):
    Work(task_id="a", outlets=[week])
with DAG(
    "fan_out_days", catchup=False, max_active_runs=2,
    schedule=PartitionedAssetTimetable(
        assets=week, default_partition_mapper=FanOutMapper(upstream_mapper=StartOfWeekMapper(), window=WeekWindow())),
):
    tell()
with DAG(
    "fan_out_few", catchup=False,
    schedule=PartitionedAssetTimetable(assets=week, default_partition_mapper=FanOutMapper(
        upstream_mapper=StartOfWeekMapper(), window=WeekWindow(), max_downstream_keys=6)),
):
    tell()
""",
    ),
    # Two assets meet in a month, each through mappers of its own; a DAG without partitions hears nothing of keys.
    case(
        "meeting",
        ["meeting_one", "meeting_other", "meeting_both", "meeting_any", "meeting_plain"],
        [
            *keyed("meeting_one", "2026-01-05T00:00:00", "2026-02-05T00:00:00"),
            ["runs", "meeting_any", 2],
            *keyed("meeting_other", "north|2026-02-11T10:00:00"),
            ["runs", "meeting_both", 1],
            ["runs", "meeting_any", 3],
            ["trigger", "meeting_plain", "odd", {"partition_key": "x"}],
            ["still", 1],
        ],
        """
one = Asset(name="one", uri="s3://partitions/one")
other = Asset(name="other", uri="s3://partitions/other")
to_month = ChainMapper(StartOfHourMapper(), StartOfMonthMapper(input_format="%Y-%m-%dT%H"))
with DAG("meeting_one", schedule=PartitionedAtRuntime()):
    Work(task_id="a", outlets=[one])
with DAG("meeting_other", schedule=PartitionedAtRuntime()):
    Work(task_id="a", outlets=[other])
with DAG(
    "meeting_both", catchup=False,
    schedule=PartitionedAssetTimetable(
        assets=one & Asset.ref(name="other"),
        partition_mapper_config={
            one: ChainMapper(to_month, StartOfQuarterMapper(input_format="%Y-%m")),
            Asset.ref(name="other"): ChainMapper(
                ProductMapper(IdentityMapper(), StartOfQuarterMapper()),
                StartOfQuarterMapper(input_format="north|%Y-Q1"),
            ),
        },
    ),
):
    tell()
with DAG(
    "meeting_any", catchup=False, schedule=PartitionedAssetTimetable(assets=one | other),
):
    tell()
with DAG("meeting_plain", schedule=[one], catchup=False):
    Work(task_id="a")
""",
    ),
]


def files(cases: list[Case]) -> dict[str, str]:
    mine = [case.source for case in cases if case in CASES]
    return {FILE: HEAD + "\n".join(mine)} if mine else {}

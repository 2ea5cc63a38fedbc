"""A digest of yesterday, made every morning at six: a schedule, its data interval, and task groups.

Shows      a cron timetable with data intervals and a time zone, `catchup=False`, the interval's bounds in a
           task, two task groups of the same make, and `max_active_runs`.
Ends       success: 6 tasks. `merge` returns the parts in order, ["mail: 3", "chat: 12"].
           Unpaused, one scheduled run appears for the last interval that is over; runs triggered by hand
           end the same.
"""

from __future__ import annotations

import datetime

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task, task_group


@dag(
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="Europe/Berlin"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Berlin"),
    catchup=False,
    max_active_runs=1,
    tags=["example"],
    doc_md=__doc__,
)
def daily_digest():
    @task
    def collect(source: str, messages: list[str]) -> list[str]:
        """Take what fell into the run's interval."""
        context = get_current_context()
        # A run triggered by hand without a logical date has no data interval: it takes the last day.
        until = context.get("data_interval_end") or context["dag_run"].run_after
        since = context.get("data_interval_start") or until - datetime.timedelta(days=1)
        print(f"{source}: from {since} to {until}")
        return messages

    @task
    def summarize(source: str, messages: list[str]) -> str:
        return f"{source}: {len(messages)}"

    @task_group
    def read(source: str, messages: list[str]):
        return summarize(source, collect(source, messages))

    @task
    def merge(parts: list[str]) -> list[str]:
        return list(parts)

    @task
    def send(digest: list[str]) -> None:
        print("\n".join(digest))

    mail = read.override(group_id="mail")("mail", ["invoice", "newsletter", "question"])
    chat = read.override(group_id="chat")("chat", [f"message {n}" for n in range(12)])
    send(merge([mail, chat]))


daily_digest()

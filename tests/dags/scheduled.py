"""Schedules with and without catchup, in a zone with summer time."""

from datetime import datetime, timedelta

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

TODAY = pendulum.now("Europe/Berlin").start_of("day")

with DAG("daily_catchup", schedule="30 2 * * *", start_date=TODAY.subtract(days=3), catchup=True, max_active_runs=1):
    EmptyOperator(task_id="first") >> EmptyOperator(task_id="second")

with DAG("hourly_latest", schedule=timedelta(hours=1), start_date=datetime(2026, 1, 1), catchup=False):
    EmptyOperator(task_id="only")

"""Timetables and weight rules of users' own, for an environment's plugins folder."""

import os
import time
from datetime import timedelta

from airflow.example_dags.plugins.workday import WorkdayTimetablePlugin  # noqa: F401
from airflow.plugins_manager import AirflowPlugin
from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable


class EveryThirdDay(Timetable):
    """Days 1, 4, 7, ... after the start, with names of its own."""

    def infer_manual_data_interval(self, *, run_after):
        return DataInterval(run_after - timedelta(days=3), run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        if last_automated_data_interval is None:
            start = restriction.earliest
        else:
            start = last_automated_data_interval.end
        if restriction.latest and start > restriction.latest:
            return None
        return DagRunInfo.interval(start, start + timedelta(days=3))

    def generate_run_id(self, *, run_type, run_after, data_interval, **extra):
        return f"{run_type.value}__third.{run_after:%Y%m%d}"


class Unruly(EveryThirdDay):
    """Goes well once; then it misbehaves, as a service may that it depends on."""

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        info = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        if last_automated_data_interval is not None:
            self.misbehave()
        return info


class Hanging(Unruly):
    def misbehave(self):
        time.sleep(3600)


class Crashing(Unruly):
    def misbehave(self):
        os._exit(3)


class Raising(Unruly):
    def misbehave(self):
        raise RuntimeError("the calendar is away")


class ByName(PriorityWeightStrategy):
    def get_weight(self, ti):
        return len(ti.task.task_id) * 10


class HousePlugin(AirflowPlugin):
    name = "house_plugin"
    timetables = [EveryThirdDay, Hanging, Crashing, Raising]
    priority_weight_strategies = [ByName]

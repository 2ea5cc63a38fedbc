"""Sources that get a key, and DAGs that wait for keys: two hours of a day, or the same key of two assets."""

from airflow.sdk import (
    DAG,
    Asset,
    DayWindow,
    MinimumCount,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    RollupMapper,
    StartOfDayMapper,
    task,
)

hourly = Asset(name="hourly", uri="s3://shop/hourly")
left = Asset(name="left", uri="s3://shop/left")
right = Asset(name="right", uri="s3://shop/right")

with DAG("hour", schedule=PartitionedAtRuntime()):

    @task(outlets=[hourly])
    def load():
        pass

    load()


def seen():
    @task
    def see(dag_run, triggering_asset_events):
        keys = sorted(event.partition_key for events in triggering_asset_events.values() for event in events)
        return [dag_run.partition_key, str(dag_run.partition_date), keys]

    see()


two_hours = RollupMapper(upstream_mapper=StartOfDayMapper(), window=DayWindow(), wait_policy=MinimumCount(2))
with DAG("day", schedule=PartitionedAssetTimetable(assets=hourly, default_partition_mapper=two_hours)):
    seen()

with DAG("sides", schedule=PartitionedAtRuntime()):

    @task(outlets=[left])
    def write_left():
        pass

    @task(outlets=[right])
    def write_right():
        pass

    write_left()
    write_right()

with DAG("both_sides", schedule=PartitionedAssetTimetable(assets=left & right)):
    seen()

with DAG("plain", schedule=None):
    seen()

"""Two producers, and consumers that wait for one of their assets, both, an alias, or time."""

import datetime

from airflow.sdk import DAG, Asset, AssetAlias, AssetAny, Metadata, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

orders = Asset(name="orders", uri="s3://shop/orders")
customers = Asset(name="customers", uri="s3://shop/customers")
reports = AssetAlias("reports")

with DAG("produce_orders"):

    @task(outlets=[orders])
    def load(outlet_events):
        outlet_events[orders].extra = {"rows": 7}

    load()

with DAG("produce_customers"):

    @task(outlets=[customers])
    def load():
        pass

    load()

with DAG("produce_report"):

    @task(outlets=[reports])
    def write():
        yield Metadata(Asset(name="report_1", uri="s3://shop/report_1"), extra={"pages": 3}, alias=reports)

    write()


def seen():
    @task
    def see(triggering_asset_events):
        return sorted(f"{event.asset.name} {event.extra}" for events in triggering_asset_events.values() for event in events)

    see()


with DAG("both", schedule=[orders, customers]):
    seen()

with DAG("either", schedule=AssetAny(orders, customers), max_active_runs=1):
    seen()

with DAG("by_alias", schedule=[reports]):
    seen()

with DAG("by_reference", schedule=[Asset.ref(name="orders")]):
    seen()

nightly = CronTriggerTimetable("0 3 29 2 *", timezone="UTC")
with DAG(
    "asset_or_time",
    schedule=AssetOrTimeSchedule(timetable=nightly, assets=[customers]),
    start_date=datetime.datetime(2024, 1, 1),
):
    seen()

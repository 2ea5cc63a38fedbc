"""DAGs on timetables and weight rules of the user's own; `plugins/house_plugin.py` brings them."""

import pendulum
from airflow.example_dags.plugins.workday import AfterWorkdayTimetable
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from house_plugin import ByName, Crashing, EveryThirdDay, Hanging, Raising


def own(dag_id, schedule, **more):
    with DAG(dag_id, schedule=schedule, is_paused_upon_creation=False, **more) as dag:
        EmptyOperator(task_id="run_this", weight_rule=ByName()) >> EmptyOperator(task_id="then")
    return dag


start = pendulum.datetime(2024, 1, 1, tz="UTC")
third = {"start_date": start, "end_date": pendulum.datetime(2024, 1, 9, tz="UTC"), "catchup": True}
dags = [
    own("third_days", EveryThirdDay(), **third),
    own("hanging", Hanging(), **third),
    own("crashing", Crashing(), **third),
    own("raising", Raising(), **third),
    own("workdays", AfterWorkdayTimetable(), start_date=start, end_date=start.add(days=8), catchup=True),
]

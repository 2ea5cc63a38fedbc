"""DAGs whose stored forms a test spoils, one way each; `sound` stays as it is."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

for name in ["version", "rule", "cycle", "dangling", "nothing", "sound"]:
    with DAG(name, schedule=None):
        EmptyOperator(task_id="first") >> EmptyOperator(task_id="last")

with DAG("due", schedule="@daily", start_date=__import__("datetime").datetime(2026, 1, 1)):
    EmptyOperator(task_id="only")

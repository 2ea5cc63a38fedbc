"""No task of this DAG needs a worker."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("empty", schedule=None):
    EmptyOperator(task_id="first") >> [EmptyOperator(task_id=name) for name in "abc"] >> EmptyOperator(task_id="last")

"""A file that asks for a Variable while it is parsed."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Variable

with DAG("from_variable", schedule=None, catchup=False, tags=[Variable.get("team")]):
    EmptyOperator(task_id="only")

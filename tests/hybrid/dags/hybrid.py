"""What an existing Airflow runs on Modal, beside an executor of its own: one DAG to success, one to failure. For Airflow 2.11 and 3."""

from datetime import datetime

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.python import PythonOperator
except ImportError:
    from airflow.operators.bash import BashOperator
    from airflow.operators.python import PythonOperator

OF_BOTH = {
    "schedule": "@once",
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    "is_paused_upon_creation": False,
    "default_args": {"executor": "Modal"},
}


def total(task_instance):
    number = int(task_instance.xcom_pull(task_ids="number"))
    print("the total is", number + 1)
    return number + 1


with DAG("hybrid_success", **OF_BOTH):
    hello = BashOperator(task_id="hello", bash_command="echo hello from a container")
    variables = BashOperator(task_id="variables", bash_command='test "$HYBRID_WORD" = blue && echo "the word is $HYBRID_WORD"')
    number = BashOperator(task_id="number", bash_command="echo 41", executor_config={"timeout": 900, "max_containers": 2})
    hello >> [variables, number, BashOperator(task_id="at_home", bash_command="echo at home", executor="LocalExecutor")]
    [variables, number] >> PythonOperator(task_id="total", python_callable=total)

with DAG("hybrid_failure", **OF_BOTH):
    BashOperator(task_id="exit_1", bash_command="echo leaving; exit 1")

"""Questions to people: one that is answered, one whose patience ends with a default, one without."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param

with DAG("hitl", schedule=None):
    HITLOperator(
        task_id="answered",
        subject="Shall it be?",
        options=["yes", "no"],
        params={"why": Param("no reason", type="string")},
    )
    HITLOperator(
        task_id="defaults",
        subject="Nobody answers",
        options=["yes", "no"],
        defaults=["no"],
        params={"why": Param("no reason", type="string")},
        response_timeout=timedelta(seconds=1),
    )
    HITLOperator(
        task_id="times_out",
        subject="Nobody answers, and there is no default",
        options=["yes", "no"],
        response_timeout=timedelta(seconds=1),
    )

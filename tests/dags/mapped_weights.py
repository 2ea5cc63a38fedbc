"""A weight rule of the user's own on a mapped task: Airflow stores the rule's repr, and can't make a run."""

from airflow.sdk import DAG, task
from house_plugin import ByName

with DAG("mapped_weights", schedule=None):

    @task(weight_rule=ByName())
    def four(x):
        return x

    four.expand(x=[1, 2])

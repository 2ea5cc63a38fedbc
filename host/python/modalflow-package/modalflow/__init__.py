"""Runs the tasks of any Apache Airflow as function calls on Modal.

`modalflow.executor.modal_executor.ModalExecutor` is the executor, `modalflow.deploy` brings the function to Modal that runs
the tasks, `modalflow.worker` is that function. What speaks with Modal while tasks run is `modalflow-host`, a program that
this package carries.
"""

__version__ = "0.1.0"

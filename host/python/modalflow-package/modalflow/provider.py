"""What Airflow is told of this package: its executor and its configuration. The connection type `modal` belongs to
apache-airflow-providers-modal and is not defined a second time here."""

from __future__ import annotations

from modalflow.executor.settings import DEFAULTS, SECTION

_SINCE = "0.1.0"

_OPTIONS = {
    "conn_id": (
        "string",
        "Connection with Modal's token: login is the token's id, password its secret, `environment` in extra Modal's environment. "
        "Without such a connection Modal's own variables and ~/.modal.toml hold.",
        "modal_default",
    ),
    "environment": ("string", "Modal's environment; empty for the connection's, or the default one.", "production"),
    "app_name": ("string", "The app on Modal that `airflow modalflow deploy` makes.", "airflow-tasks"),
    "function_name": ("string", "Its function that runs tasks.", "run_workload"),
    "volume_name": ("string", "The volume that takes the tasks' logs; empty for none.", "airflow-task-logs"),
    "secrets": ("string", "Secrets on Modal that tasks get as variables, with commas between them.", "warehouse,airflow-database"),
    "function_options": (
        "string",
        "Modal's options of the deployed function as a JSON object: cpu, memory, gpu, region, timeout, max_containers, …",
        '{"cpu": 1, "memory": 2048, "region": "eu"}',
    ),
    "host_url": (
        "string",
        "The Execution API as containers on Modal reach it (Airflow 3). Empty: [core] execution_api_server_url.",
        "https://airflow.example.com/execution/",
    ),
    "check_health_on_startup": (
        "boolean",
        "Whether the scheduler refuses to start when Modal does not let it in or has no such function.",
        "True",
    ),
    "max_spawn_attempts": (
        "integer",
        "How often the start of one task is tried while Modal can't be reached, is full, or loses its container, before the try fails.",
        "3",
    ),
    "end_wait_timeout": (
        "float",
        "Seconds that a scheduler waits for running tasks when it is stopped. The tasks go on in any case, and the next scheduler adopts them.",
        "60",
    ),
}


def get_provider_info() -> dict:
    options = {
        name: {
            "description": description,
            "version_added": _SINCE,
            "type": kind,
            "example": example,
            "default": DEFAULTS[name],
        }
        for name, (kind, description, example) in _OPTIONS.items()
    }
    return {
        "package-name": "modalflow",
        "name": "Modalflow",
        "description": "Runs tasks as function calls on Modal.",
        "executors": ["modalflow.executor.modal_executor.ModalExecutor"],
        # Airflow 3.2 and later; earlier ones ask the executor.
        "cli": ["modalflow.cli.commands"],
        "config": {SECTION: {"description": "ModalExecutor of the package modalflow.", "options": options}},
    }

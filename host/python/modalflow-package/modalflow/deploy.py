"""Brings the function to Modal that runs the tasks: an app with one function, an image with Airflow, a volume for logs.

Needs Modal's client (`pip install modalflow[deploy]`). Deploying again replaces the function; running tasks keep theirs.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from modalflow import worker
from modalflow.executor.settings import LOGS

AIRFLOW_HOME = "/opt/airflow"
DAGS = f"{AIRFLOW_HOME}/dags"
#: As in Airflow's own images.
USER, UID = "airflow", 50000
CONSTRAINTS = "https://raw.githubusercontent.com/apache/airflow/constraints-{airflow}/constraints-{python}.txt"
#: What is no part of anybody's DAGs.
NEVER_UPLOADED = ["**/__pycache__", "**/*.pyc", "**/.git", "**/.venv"]
#: Tasks are not calls of a quarter of an hour.
TIMEOUT_SECONDS = 24 * 60 * 60
#: Of a function, on Modal.
NAME_LENGTH = 63
#: Modal's names for what a deployment may say about its containers.
FUNCTION_OPTIONS = (
    "cpu",
    "memory",
    "gpu",
    "timeout",
    "startup_timeout",
    "region",
    "cloud",
    "ephemeral_disk",
    "min_containers",
    "max_containers",
    "buffer_containers",
    "scaledown_window",
    "nonpreemptible",
    "block_network",
    "single_use_containers",
)


@dataclass
class Deployment:
    """All that is deployed."""

    app_name: str
    function_name: str
    airflow_version: str
    environment: str = ""
    volume_name: str = ""
    #: An image of your own, with Airflow and a Python; without one it is made.
    image: str = ""
    #: Images that single tasks choose, by the name that they say. Everything else is the same for them.
    images: dict[str, str] = field(default_factory=dict)
    requirements: list[str] = field(default_factory=list)
    dags: str = ""
    secrets: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    function_options: dict = field(default_factory=dict)


def make_app(deployment: Deployment):
    """The app, not deployed yet."""
    import modal

    unknown = sorted(set(deployment.function_options) - set(FUNCTION_OPTIONS))
    if unknown:
        raise ValueError(f"no option of a function: {', '.join(unknown)}; there are {', '.join(FUNCTION_OPTIONS)}")
    environment = deployment.environment or None
    volumes = {}
    if deployment.volume_name:
        volumes[LOGS] = modal.Volume.from_name(
            deployment.volume_name, environment_name=environment, create_if_missing=True, version=2
        )
    secrets = [modal.Secret.from_name(name, environment_name=environment) for name in deployment.secrets]
    app = modal.App(deployment.app_name)
    options = {"timeout": TIMEOUT_SECONDS, **deployment.function_options}
    functions = {deployment.function_name: deployment}
    for name, reference in deployment.images.items():
        functions[_function_of(deployment.function_name, name)] = replace(deployment, image=reference)
    for name, deployed in functions.items():
        app.function(
            name=name,
            image=make_image(deployed),
            volumes=volumes,
            secrets=secrets,
            include_source=False,
            # Airflow retries tasks; a second run of the same try is refused.
            retries=0,
            **options,
        )(worker.run_workload)
    return app


def _function_of(function_name: str, image: str) -> str:
    """The function of an image that tasks choose by its name."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", image):
        raise ValueError(f"no name of an image: {image!r}; letters, digits, dashes, underscores and dots are allowed")
    name = f"{function_name}_{image}"
    if len(name) > NAME_LENGTH:
        raise ValueError(f"the name of image {image!r} is too long: its function {name} may have {NAME_LENGTH} characters")
    return name


def make_image(deployment: Deployment):
    """Airflow of the scheduler's version with its published constraints, what you need, your DAGs at the end."""
    import modal

    if deployment.image:
        image = modal.Image.from_registry(deployment.image).entrypoint([])
    else:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        constraints = CONSTRAINTS.format(airflow=deployment.airflow_version, python=python)
        image = (
            modal.Image.debian_slim(python_version=python)
            .run_commands(f"useradd --uid {UID} --gid 0 --create-home {USER}")
            .uv_pip_install(
                f"apache-airflow=={deployment.airflow_version}",
                "psycopg2-binary",
                extra_options=f"--constraint {constraints}",
            )
        )
    for requirements in deployment.requirements:
        image = image.uv_pip_install(requirements=[requirements])
    image = image.run_commands(
        f"mkdir -p {AIRFLOW_HOME} {DAGS} && chown -R {UID}:0 {AIRFLOW_HOME}"
    )
    variables = {
        "AIRFLOW_HOME": AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": DAGS,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": LOGS,
        worker.USER_VARIABLE: USER,
        worker.VOLUME_VARIABLE: deployment.volume_name,
        worker.ENVIRONMENT_VARIABLE: deployment.environment,
        **deployment.variables,
    }
    # Nothing is built after this: DAGs and code come with the container, so that a changed DAG builds no image.
    image = image.env(variables).add_local_python_source("modalflow")
    if deployment.dags:
        image = image.add_local_dir(
            str(Path(deployment.dags).resolve()), DAGS, ignore=_ignore(deployment.dags)
        )
    return image


def _ignore(dags: str) -> list[str]:
    """`.modalignore` in the DAG folder, in the form of a .dockerignore, and what is never uploaded."""
    try:
        lines = (Path(dags) / ".modalignore").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")] + NEVER_UPLOADED


def deploy(deployment: Deployment, variables: dict[str, str]) -> str:
    """Deploys it as whom `variables` say (MODAL_TOKEN_ID, …). Answers the app's id."""
    os.environ.update(variables)
    try:
        import modal
    except ImportError:
        raise RuntimeError("Modal's client is missing; install it with `pip install 'modalflow[deploy]'`") from None
    with modal.enable_output():
        app = make_app(deployment).deploy(environment_name=deployment.environment or None)
    return app.app_id

"""What the section `[modal_executor]` says, and how Modal is reached: the connection, or Modal's own variables."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from modalflow.host import Target

log = logging.getLogger(__name__)

SECTION = "modal_executor"
#: Where the volume for logs is in containers.
LOGS = "/opt/airflow/logs"
#: Where Airflow serves the Execution API below its base URL.
API_PATH = "/execution/"

DEFAULTS = {
    "conn_id": "modal_default",
    "environment": "",
    "app_name": "airflow-tasks",
    "function_name": "run_workload",
    "volume_name": "airflow-task-logs",
    "secrets": "",
    "function_options": "",
    "host_url": "",
    "check_health_on_startup": "True",
    "max_spawn_attempts": "3",
    "end_wait_timeout": "0",
}


@dataclass(frozen=True)
class Settings:
    conn_id: str
    environment: str
    app_name: str
    function_name: str
    volume_name: str
    secrets: tuple[str, ...]
    function_options: dict
    host_url: str
    check_health_on_startup: bool
    max_spawn_attempts: int
    end_wait_timeout: float

    @classmethod
    def read(cls, conf) -> Settings:
        """From the executor's own `conf`, so that a team's values hold."""

        def text(option: str) -> str:
            return conf.get(SECTION, option, fallback=DEFAULTS[option]) or ""

        def number(option: str, kind):
            value = text(option) or DEFAULTS[option]
            try:
                return kind(value)
            except ValueError:
                raise ValueError(f"[{SECTION}] {option} is {value!r}, a number is expected") from None

        return cls(
            conn_id=text("conn_id"),
            environment=text("environment"),
            app_name=text("app_name"),
            function_name=text("function_name"),
            volume_name=text("volume_name"),
            secrets=tuple(name.strip() for name in text("secrets").split(",") if name.strip()),
            function_options=_object("function_options", text("function_options")),
            host_url=text("host_url"),
            check_health_on_startup=text("check_health_on_startup").strip().lower() in ("1", "t", "true", "yes", "on"),
            max_spawn_attempts=max(number("max_spawn_attempts", int), 1),
            end_wait_timeout=max(number("end_wait_timeout", float), 0.0),
        )


def _object(option: str, text: str) -> dict:
    try:
        read = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"[{SECTION}] {option} is no JSON: {error}") from None
    if not isinstance(read, dict):
        raise ValueError(f"[{SECTION}] {option} is {text!r}, a JSON object is expected")
    return read


def execution_api_url(settings: Settings, conf) -> str:
    """The Execution API as a container on Modal reaches it, with the path that people leave out."""
    url = settings.host_url or conf.get("core", "execution_api_server_url", fallback="")
    if not url:
        base = conf.get("api", "base_url", fallback="") or "/"
        if base.startswith("/"):
            base = f"http://localhost:8080{base}"
        url = base.rstrip("/") + API_PATH
    if not urlsplit(url).path.rstrip("/").endswith("/execution"):
        url = url.rstrip("/") + API_PATH
    return url.rstrip("/") + "/"


def is_out_of_reach(url: str) -> bool:
    """Whether this is an address of this machine, and containers are on another."""
    here = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
    modal = urlsplit(os.environ.get("MODAL_SERVER_URL", "").split(",")[0]).hostname
    return urlsplit(url).hostname in here and modal not in here


def target(settings: Settings, team_name: str | None = None) -> Target:
    """Which function, as whom. The connection is read anew each time, since tokens are changed."""
    variables, environment = {}, settings.environment
    connection = _connection(settings.conn_id, team_name)
    if connection is not None:
        if connection.login and connection.password:
            variables["MODAL_TOKEN_ID"] = connection.login
            variables["MODAL_TOKEN_SECRET"] = connection.password
        environment = environment or _extra(connection).get("environment", "")
    environment = environment or os.environ.get("MODAL_ENVIRONMENT", "")
    return Target(settings.app_name, settings.function_name, environment, _deployed(settings), variables)


def _deployed(settings: Settings) -> str:
    """What a variant of the function must keep when a task asks for other resources, secrets or volumes."""
    deployed = {name: settings.function_options[name] for name in ("cpu", "memory", "gpu") if name in settings.function_options}
    if settings.secrets:
        deployed["secrets"] = list(settings.secrets)
    if settings.volume_name:
        deployed["volumes"] = {LOGS: settings.volume_name}
    return json.dumps(deployed)


def _connection(conn_id: str, team_name: str | None):
    """The connection, or nothing when there is none: Modal's own variables and file are as good."""
    from airflow.exceptions import AirflowNotFoundException
    from airflow.models import Connection

    if not conn_id:
        return None
    of_team = {"team_name": team_name} if team_name else {}
    try:
        return Connection.get_connection_from_secrets(conn_id, **of_team)
    except AirflowNotFoundException:
        log.info("There is no connection %r; Modal's own settings are used", conn_id)
    return None


def _extra(connection) -> dict:
    # Not `extra_dejson`: it complains about each character that is not JSON.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        return {}
    return extra if isinstance(extra, dict) else {}

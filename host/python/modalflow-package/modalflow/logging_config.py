"""Airflow's logging, with the logs of finished tasks from the volume on Modal:

    [logging]
    logging_config_class = modalflow.logging_config.LOGGING_CONFIG

for the API server (Airflow 3) or the webserver (2.11). Airflow 3 takes `REMOTE_TASK_LOG` from this module, 2.11 the handler
that the dict names. Imported while Airflow itself starts: nothing heavy here, and nothing of Airflow's database.
"""

from __future__ import annotations

import copy

from airflow import __version__ as airflow_version
from airflow.config_templates import airflow_local_settings

from modalflow.volume_logs import RUNNING, Found, Log, VolumeLogs, find

LOGGING_CONFIG = copy.deepcopy(airflow_local_settings.DEFAULT_LOGGING_CONFIG)
DEFAULT_REMOTE_CONN_ID = None


class RemoteLogs:
    """Airflow 3's `RemoteLogStreamIO`."""

    #: What it may ask of the process that writes a log: nothing.
    processors = ()

    def __init__(self):
        self.volume = VolumeLogs()

    def upload(self, path, ti=None) -> None:
        """The container that wrote a log has committed the volume; other logs are no business of Modal's."""

    def read(self, relative_path: str, ti):
        """Airflow 3.1, which takes whole texts."""
        found = self._find(relative_path, ti)
        return found.messages, ["\n".join(self._lines(found, log)) for log in (*found.logs, *found.local)] or None

    def stream(self, relative_path: str, ti):
        """Airflow 3.2 and later. Nothing is read before somebody wants it."""
        found = self._find(relative_path, ti)
        return found.messages, [self._lines(found, log) for log in (*found.logs, *found.local)]

    def _find(self, relative_path: str, ti) -> Found:
        return find(self.volume, relative_path, ti.state == RUNNING)

    def _lines(self, found: Found, log):
        if isinstance(log, Log):
            yield from self.volume.lines(log)
        else:
            with log.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    yield line.rstrip("\n")


if airflow_version.startswith("2."):
    _task = LOGGING_CONFIG["handlers"]["task"]
    if _task["class"] == "airflow.utils.log.file_task_handler.FileTaskHandler":
        _task["class"] = "modalflow.task_handler.ModalTaskHandler"
else:
    REMOTE_TASK_LOG = RemoteLogs()

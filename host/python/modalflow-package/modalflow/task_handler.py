"""Airflow 2.11's handler for the logs of tasks, which also reads those of finished tasks from the volume on Modal."""

from __future__ import annotations

from airflow.utils.log.file_task_handler import FileTaskHandler

from modalflow.volume_logs import RUNNING, VolumeLogs, find


class ModalTaskHandler(FileTaskHandler):
    """Writes as Airflow's own handler does: into a file of this machine."""

    def __init__(self, base_log_folder: str, **options):
        super().__init__(base_log_folder, **options)
        self.volume = VolumeLogs()

    def _read_remote_logs(self, ti, try_number, metadata=None) -> tuple[list[str], list[str]]:
        is_running = ti.state == RUNNING and ti.try_number == try_number
        found = find(self.volume, self._render_filename(ti, try_number), is_running)
        logs = ["\n".join(self.volume.lines(log)) for log in found.logs]
        return found.messages, logs + [path.read_text(encoding="utf-8", errors="replace") for path in found.local]

"""Logs of finished tasks, as the API server or webserver reads them from the volume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import unittest
from types import SimpleNamespace
from unittest import mock

from support import FOLDER, IS_AIRFLOW_2, LIVE, SUFFIX, Modal, wait

from modalflow import volume_logs
from modalflow.executor.modal_executor import AIRFLOW_VERSION
from modalflow.volume_logs import Log, VolumeLogs, find

VOLUME = f"modalflow-logs-{SUFFIX}"
FOLDER_OF_TRY = "dag_id=probe/run_id=manual__2026-01-01T00:00:00+00:00/task_id=a.b"
LOG = f"{FOLDER_OF_TRY}/attempt=1.log"
#: Two bytes each, and one before: a part ends within a letter.
LARGE = "x" + "ä" * (volume_logs.PART_BYTES // 2 + 10) + "\nthe end\n"
SETTINGS = {
    "AIRFLOW__MODAL_EXECUTOR__VOLUME_NAME": VOLUME,
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(FOLDER / "logs-here"),
}


def setUpModule():
    import modal

    Modal.start()
    unittest.addModuleCleanup(modal.Volume.objects.delete, VOLUME, allow_missing=True)
    put({LOG: "one\ntwo\n", f"{LOG}.1": "zero\n", f"{FOLDER_OF_TRY}/attempt=10.log": "ten\n", "large.log": LARGE, "secret": "no log"})
    patch = mock.patch.dict(os.environ, SETTINGS)
    patch.start()
    unittest.addModuleCleanup(patch.stop)


def put(texts: dict[str, str]) -> None:
    import io

    import modal

    volume = modal.Volume.from_name(VOLUME, create_if_missing=True, version=2)
    with volume.batch_upload(force=True) as batch:
        for path, text in texts.items():
            batch.put_file(io.BytesIO(text.encode()), path)


class Case(unittest.TestCase):
    def setUp(self):
        self.logs = VolumeLogs()
        self.addCleanup(self.logs.stop)

    def text(self, path: str) -> str:
        return "\n".join(line for log in find(self.logs, path, False).logs for line in self.logs.lines(log))


class ReadCase(Case):
    def test_a_log_and_its_older_parts_are_found_and_no_other_trys(self):
        found = find(self.logs, LOG, False)
        self.assertEqual([log.path for log in found.logs], [LOG, f"{LOG}.1"])
        self.assertIn(VOLUME, found.messages[0])
        self.assertEqual(self.text(LOG), "one\ntwo\nzero")

    def test_a_large_log_comes_in_parts(self):
        self.assertEqual(self.text("large.log"), LARGE.rstrip("\n"))

    def test_a_log_that_grows_is_read_up_to_where_it_was_found(self):
        (log,) = self.logs.find("large.log")
        self.assertEqual("".join(self.logs.texts(Log(log.path, 5))), "xää")

    def test_a_log_that_is_not_there_is_no_error(self):
        found = find(self.logs, "dag_id=none/attempt=1.log", False)
        self.assertEqual((found.logs, found.local), ([], []))
        self.assertIn("No dag_id=none/attempt=1.log on the volume", found.messages[0])

    def test_a_log_that_goes_away_while_it_is_read_says_so(self):
        self.assertRegex("\n".join(self.logs.lines(Log("gone.log", 10))), "The rest of gone.log can't be read")

    def test_a_running_task_is_the_executors(self):
        self.assertEqual(find(self.logs, LOG, True), ([], [], []))
        self.assertIsNone(self.logs._line)

    def test_no_path_leads_out_of_its_folder(self):
        for path in (f"{FOLDER_OF_TRY}/../../../secret", "/secret", "./secret", "../secret", "a\nb"):
            found = find(self.logs, path, False)
            self.assertEqual(found.logs, [], path)
            self.assertIn("no path within a volume", found.messages[0])

    def test_what_a_trigger_said_here_comes_along(self):
        folder = FOLDER / "logs-here" / FOLDER_OF_TRY
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "attempt=1.log.trigger.7.log").write_text("triggered\n")
        (folder / "attempt=1.log.trigger.8.log").symlink_to("/etc/passwd")
        found = find(self.logs, LOG, False)
        self.assertEqual([path.name for path in found.local], ["attempt=1.log.trigger.7.log"])


class AwayCase(Case):
    def test_a_volume_that_nobody_made_says_what_to_do(self):
        with mock.patch.dict(os.environ, {"AIRFLOW__MODAL_EXECUTOR__VOLUME_NAME": f"{VOLUME}-gone"}):
            found = find(self.logs, LOG, False)
        self.assertEqual(found.logs, [])
        self.assertRegex(found.messages[0], "no volume 'modalflow-logs-.*-gone'.*modal volume list")

    def test_without_a_volume_nothing_is_asked(self):
        with mock.patch.dict(os.environ, {"AIRFLOW__MODAL_EXECUTOR__VOLUME_NAME": ""}):
            self.assertEqual(find(self.logs, LOG, False), ([], [], []))
        self.assertIsNone(self.logs._line)

    def test_a_server_that_is_not_there_is_told_in_time(self):
        started = time.monotonic()
        with mock.patch.dict(os.environ, {"MODAL_SERVER_URL": "http://127.0.0.1:1"}):
            found = find(self.logs, LOG, False)
        self.assertLess(time.monotonic() - started, 15)
        self.assertIn(f"The volume {VOLUME} on Modal can't be read", found.messages[0])

    def test_a_host_that_cannot_be_started_is_told_in_time(self):
        started = time.monotonic()
        with mock.patch.dict(os.environ, {"MODALFLOW_HOST_BINARY": "/bin/false"}):
            found = find(self.logs, LOG, False)
        self.assertLess(time.monotonic() - started, 15)
        self.assertIn("modalflow-host ended at its start", found.messages[0])

    def test_a_host_that_died_is_replaced(self):
        self.assertEqual(self.text(LOG), "one\ntwo\nzero")
        os.kill(self.logs._line._process.process.pid, signal.SIGKILL)
        self.assertEqual(self.text(LOG), "one\ntwo\nzero")

    @unittest.skipIf(LIVE, "the emulator's token is known")
    def test_a_token_that_was_changed_in_the_connection_is_taken_up(self):
        token = os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"]
        variables = {"AIRFLOW__MODAL_EXECUTOR__CONN_ID": "modal_changed", "AIRFLOW_CONN_MODAL_CHANGED": "modal://ak-wrong:as-wrong@/"}
        with mock.patch.dict(os.environ, variables):
            self.assertIn("not signed in", find(self.logs, LOG, False).messages[0])
            os.environ["AIRFLOW_CONN_MODAL_CHANGED"] = f"modal://{token[0]}:{token[1]}@/"
            self.assertEqual(self.text(LOG), "one\ntwo\nzero")


class ForkCase(Case):
    def test_a_fork_has_a_host_of_its_own(self):
        self.assertEqual(self.text(LOG), "one\ntwo\nzero")
        theirs = self.logs._line._process.process.pid
        child = os.fork()
        if child == 0:
            code = 1
            try:
                # Forks of a web server read their own logs, and end without a word.
                is_read = self.text(LOG) == "one\ntwo\nzero"
                code = 0 if is_read and self.logs._line._process.process.pid != theirs else 2
            finally:
                os._exit(code)
        ended = []
        wait(lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0] == child, "the fork's end", 60)
        self.assertEqual(os.waitstatus_to_exitcode(ended[-1][1]), 0)
        self.assertEqual(self.text(LOG), "one\ntwo\nzero")


class AirflowCase(Case):
    """What Airflow's own code makes of it."""

    def test_airflow_takes_the_logging_of_the_setting(self):
        # As Airflow finds it when a process starts: in a process of its own, since it looks once.
        if IS_AIRFLOW_2:
            look = "import logging; print(type(logging.getLogger('airflow.task').handlers[0]).__name__)"
        elif AIRFLOW_VERSION < (3, 2):
            look = "from airflow import logging_config; print(type(logging_config.REMOTE_TASK_LOG).__name__)"
        else:
            look = "from airflow.logging_config import get_remote_task_log; print(type(get_remote_task_log()).__name__)"
        setting = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "modalflow.logging_config.LOGGING_CONFIG"}
        found = subprocess.run([sys.executable, "-c", f"import airflow.settings; airflow.settings.initialize(); {look}"], env={**os.environ, **setting}, check=True, capture_output=True, text=True)
        self.assertEqual(found.stdout.splitlines()[-1], "ModalTaskHandler" if IS_AIRFLOW_2 else "RemoteLogs")

    @unittest.skipIf(IS_AIRFLOW_2, "Airflow 3's interface")
    def test_both_ways_of_reading_give_the_same(self):
        from modalflow.logging_config import RemoteLogs

        remote = RemoteLogs()
        self.addCleanup(remote.volume.stop)
        put({"both/attempt=1.log": "one\ntwo\n"})
        ti = SimpleNamespace(state="success")
        _, texts = remote.read("both/attempt=1.log", ti)
        _, streams = remote.stream("both/attempt=1.log", ti)
        self.assertEqual(texts, ["one\ntwo"])
        self.assertEqual([list(stream) for stream in streams], [["one", "two"]])
        self.assertEqual(remote.read("both/attempt=2.log", ti)[1], None)
        self.assertEqual(remote.stream("both/attempt=1.log", SimpleNamespace(state="running")), ([], []))


if __name__ == "__main__":
    unittest.main()

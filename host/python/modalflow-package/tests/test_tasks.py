"""What a task says while it runs, and what it may ask for."""

from __future__ import annotations

import os
import signal
import unittest
from unittest import mock

from support import LIVE, Case, Modal, image_of, key_of, starts, task_instance, wait

from modalflow.host import HostUnavailable


def setUpModule():
    Modal.start()


class LogCase(Case):
    def test_a_running_task_shows_what_it_says(self):
        executor = self.executor()
        key = self.queue(executor, "hang")
        ti = task_instance(key, self.call_id(executor, key))

        def said() -> str:
            _, logs = executor.get_task_log(ti, 1)
            return "\n".join(logs)

        wait(lambda: "hang begins" in said(), "the line")
        self.assertEqual(executor.get_task_log(ti, 2), ([], []))
        executor.terminate()

    def test_another_process_reads_it_too(self):
        """The API server has an executor that nobody started."""
        executor = self.executor()
        key = self.queue(executor, "hang")
        ti = task_instance(key, self.call_id(executor, key))
        reader = self.executor(start=False)
        wait(lambda: "hang begins" in "".join(reader.get_task_log(ti, 1)[1]), "the line")
        executor.terminate()

    def test_a_log_that_cannot_be_read_says_why(self):
        executor = self.executor(start=False)
        executor.line.logs = lambda call_id: (_ for _ in ()).throw(OSError("the wire is cut"))
        messages, logs = executor.get_task_log(task_instance(key_of("hang"), "fc-1"), 1)
        self.assertEqual(logs, [])
        self.assertIn("the wire is cut", messages[0])

    @unittest.skipIf(LIVE, "the emulator's token is known")
    def test_a_token_that_was_changed_in_the_connection_is_taken_up(self):
        executor = self.executor()
        key = self.queue(executor, "hang")
        ti = task_instance(key, self.call_id(executor, key))
        token = os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"]
        variables = {"AIRFLOW__MODAL_EXECUTOR__CONN_ID": "modal_changed", "AIRFLOW_CONN_MODAL_CHANGED": "modal://ak-wrong:as-wrong@/"}
        with mock.patch.dict(os.environ, variables):
            reader = self.executor(start=False)
            self.assertIn("not signed in", reader.get_task_log(ti, 1)[0][0])
            os.environ["AIRFLOW_CONN_MODAL_CHANGED"] = f"modal://{token[0]}:{token[1]}@/"
            self.assertIn("Read from Modal", reader.get_task_log(ti, 1)[0][0])
        executor.terminate()

    def test_a_host_that_does_not_answer_is_told_in_words(self):
        executor = self.executor()
        host = executor.line._process.process.pid
        os.kill(host, signal.SIGSTOP)
        try:
            with self.assertRaisesRegex(HostUnavailable, "^modalflow-host did not answer within 1 s"):
                executor.line.health(1.0)
        finally:
            os.kill(host, signal.SIGCONT)


class OptionsCase(Case):
    def test_options_of_a_task_reach_modal(self):
        executor = self.executor()
        key = self.queue(executor, "hang", executor_config={"timeout": 2, "memory": 256, "cpu": 0.5})
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertEqual(self.info(key), "it ran longer than its function's timeout")

    def test_an_option_that_modal_does_not_have_fails_the_task_and_names_the_right_one(self):
        executor = self.executor()
        key = self.queue(executor, "succeed", executor_config={"memroy": 256})
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertRegex(self.info(key), "memroy.*memory")
        self.assertEqual(starts(key), 0)
        self.assert_idle(executor)

    def test_a_task_runs_on_the_image_that_it_names(self):
        executor = self.executor()
        keys = self.queue(executor, "succeed"), self.queue(executor, "succeed", executor_config={"image": "other"})
        with_more = self.queue(executor, "succeed", executor_config={"image": "other", "timeout": 60})
        self.assertEqual(self.end_of(executor, *keys, with_more), ["success"] * 3)
        self.assertEqual([image_of(key) for key in (*keys, with_more)], ["", "other", "other"])

    def test_an_image_that_was_not_deployed_fails_the_task_and_names_those_that_were(self):
        executor = self.executor()
        key = self.queue(executor, "succeed", executor_config={"image": "ohter"})
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertRegex(self.info(key), 'no image "ohter"; deployed are other; .*--image-of ohter=REFERENCE')
        self.assertEqual(starts(key), 0)
        self.assert_idle(executor)

    def test_what_other_executors_read_minds_nobody(self):
        executor = self.executor()
        key = self.queue(executor, "exit_1", executor_config={"pod_override": {"spec": {}}})
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertEqual(starts(key), 1)


    def test_what_cannot_be_sent_fails_its_task_alone(self):
        executor = self.executor()
        circle = {}
        circle["itself"] = circle
        wrong = [self.queue(executor, "succeed", executor_config=config) for config in ({("a", "b"): 1}, circle)]
        right = self.queue(executor, "succeed")
        self.assertEqual(self.end_of(executor, *wrong, right), ["failed", "failed", "success"])
        self.assertIn("its executor_config can't be sent to Modal", self.info(wrong[0]))
        self.assert_idle(executor)

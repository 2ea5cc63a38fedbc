"""The executor's cases, against the emulator; against Modal itself with MODALFLOW_TEST_LIVE=1 and a token.

    python -m unittest            in this folder, with Airflow, modal and modalflow installed

Faults of earlier executors of this kind, and the case that shows that they are none of this one:

  1 slots of failed starts are lost      StartCase.test_a_start_that_fails_gives_its_slot_back
  2 no `team_name`                       SettingsCase.test_a_team_has_its_own_executor
  3 `executor_config` is ignored         OptionsCase
  4 no `revoke_task`                     TakenBackCase.test_a_revoked_task_leaves_nothing
  5 the call is forgotten                AdoptionCase, LogCase, TakenBackCase
  6 a request a task in each heartbeat   HeartbeatCase
  7 a lost task waits for ever           EndCase.test_a_container_that_dies_is_a_failure, test_a_call_that_modal_forgot_is_a_failure
  8 keys joined by colons                StartCase.test_ids_with_colons_are_kept_apart
  9 the token shows in the command line  test_worker.py
 10 all output is stored a second time   test_worker.py
 11 no log of a running task             LogCase
 12 no packages, secrets, resources      test_deploy.py
 13 a parallelism of its own             SettingsCase.test_parallelism_is_airflows
 14 caches are uploaded                  test_deploy.py
 15 a changed DAG builds an image        test_deploy.py
 16 tasks run as root                    test_deploy.py, test_worker.py
 17 failures are not tested              all of these
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import grpc

from support import APP, IS_AIRFLOW_2, LIVE, TOKEN, Case, Modal, calls_of, image_of, key_of, starts, wait

from airflow.configuration import conf as airflow_conf
from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow.executor.line import Ended, Started
from modalflow.executor.modal_executor import AIRFLOW_VERSION, ModalExecutor
from modalflow.host import HostProcess, HostUnavailable, Target


def setUpModule():
    Modal.start()


class StartCase(Case):
    def test_the_workload_is_what_the_function_gets(self):
        executor = self.executor()
        key = self.queue(executor, "succeed")
        (call,) = executor.calls.values()
        sent = json.loads(call.payload)
        if IS_AIRFLOW_2:
            self.assertEqual(sent["command"], ["airflow", "tasks", "run", "probe", "succeed", key.run_id, "--local"])
        else:
            self.assertEqual(sent["server"], "https://airflow.example.com/execution/")
            self.assertEqual(json.loads(sent["workload"])["ti"]["run_id"], key.run_id)
            self.assertEqual(json.loads(sent["workload"])["token"], TOKEN)
        self.assertEqual(self.end_of(executor, key), ["success"])

    def test_a_task_is_started_once(self):
        executor = self.executor()
        key = self.queue(executor, "succeed")
        self.assertEqual(self.end_of(executor, key), ["success"])
        self.assertEqual(starts(key), 1)

    def test_a_task_is_started_once_though_the_host_is_killed_meanwhile(self):
        executor = self.executor()
        keys = [self.queue(executor, "slow") for _ in range(6)]
        for _ in range(3):
            wait(lambda: executor.line._process is not None and executor.line._stub is not None, "a host")
            os.kill(executor.line._process.process.pid, signal.SIGKILL)
            time.sleep(0.3)
        self.assertEqual(self.end_of(executor, *keys), ["success"] * 6)
        self.assertEqual([starts(key) for key in keys], [1] * 6)
        self.assert_idle(executor)

    def test_a_start_that_fails_gives_its_slot_back(self):
        os.environ["AIRFLOW__MODAL_EXECUTOR__APP_NAME"] = f"{APP}-gone"
        self.addCleanup(os.environ.__setitem__, "AIRFLOW__MODAL_EXECUTOR__APP_NAME", APP)
        executor = self.executor(start=False)
        keys = [self.queue(executor, "succeed") for _ in range(5)]
        self.assertEqual(self.end_of(executor, *keys), ["failed"] * 5)
        self.assertIn("could not be started on Modal", self.info(keys[0]))
        self.assert_idle(executor)

    def test_ids_with_colons_are_kept_apart(self):
        executor = self.executor()
        one = self.queue(executor, "succeed", key=TaskInstanceKey("a:b", "succeed", "c:1", 1, -1))
        other = self.queue(executor, "exit_1", key=TaskInstanceKey("a", "exit_1", "b:c:1", 1, -1))
        self.assertEqual(self.end_of(executor, one, other), ["success", "failed"])

    @unittest.skipIf(AIRFLOW_VERSION < (3, 2), "only newer schedulers assign ids")
    def test_the_id_that_the_scheduler_committed_names_the_call(self):
        executor = self.executor()
        assigned = "6a1f6c1e-3f4f-4f6e-9d0e-2f2d7f1f2a11"
        key = self.queue(executor, "succeed", assigned=assigned)
        self.assertEqual(list(executor.calls), [assigned])
        self.assertEqual(self.end_of(executor, key), ["success"])

    def test_a_deferred_task_that_goes_on_is_not_ended_by_its_first_half(self):
        executor = self.executor()
        key = self.queue(executor, "slow")
        self.call_id(executor, key)
        again = self.queue(executor, "slow", key=key)
        self.assertEqual(self.end_of(executor, again), ["success"])
        self.assertEqual(self.states(key).count("success"), 1)
        self.until(executor, lambda: not executor.calls, "both calls to end")
        self.assert_idle(executor)


class EndCase(Case):
    def test_success(self):
        executor = self.executor()
        key = self.queue(executor, "succeed")
        self.end_of(executor, key)
        # First what is no call's id, unless the call had begun by then.
        self.assertEqual(self.states(key)[-2:], ["queued", "success"])
        self.assertEqual(len(self.call_ids(key)), 1)
        self.assert_idle(executor)

    def test_exit_1_is_a_failure(self):
        executor = self.executor()
        key = self.queue(executor, "exit_1")
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertEqual(self.info(key), "its process on Modal ended with exit code 1")
        self.assert_idle(executor)

    def test_a_container_that_leaves_a_try_to_another_ends_nothing(self):
        executor = self.executor()
        key = self.queue(executor, "left")
        self.until(executor, lambda: not executor.calls, "the call's end")
        self.assertEqual(set(self.states(key)), {"queued"})
        self.assert_idle(executor)

    @unittest.skipIf(LIVE, "Modal itself redelivers when it likes")
    def test_a_call_that_is_given_to_a_second_container_ends_nothing(self):
        executor = self.executor()
        key = self.queue(executor, "twice")
        self.call_id(executor, key)
        wait(lambda: starts(key) == 1, "the first container")
        stop_containers()
        self.until(executor, lambda: not executor.calls, "the second one's answer")
        self.assertEqual((starts(key), set(self.states(key))), (2, {"queued"}))
        self.assert_idle(executor)

    def test_an_exception_is_a_failure(self):
        executor = self.executor()
        key = self.queue(executor, "raise")
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertIn("unlucky", self.info(key))

    @unittest.skipIf(LIVE, "what Modal makes of it takes minutes")
    def test_a_container_that_dies_is_a_failure(self):
        os.environ["AIRFLOW__MODAL_EXECUTOR__MAX_SPAWN_ATTEMPTS"] = "1"
        self.addCleanup(os.environ.pop, "AIRFLOW__MODAL_EXECUTOR__MAX_SPAWN_ATTEMPTS")
        executor = self.executor()
        key = self.queue(executor, "die")
        self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assert_idle(executor)

    def test_a_call_that_modal_forgot_is_a_failure(self):
        executor = self.executor()
        ti = task_instance(key_of("succeed"), "fc-01J0000000000000000000000A")
        self.assertEqual(executor.try_adopt_task_instances([ti]), [])
        self.assertEqual(self.end_of(executor, ti.key), ["failed"])
        self.assertIn("does not know the call", self.info(ti.key))


    @unittest.skipIf(LIVE, "Modal itself is not replaced")
    def test_a_call_that_modal_lets_nobody_ask_for_is_a_failure(self):
        """It belongs to the workspace of an earlier token, say: asking again changes nothing, and its slot is needed."""

        class Refusing(grpc.GenericRpcHandler):
            def service(self, details):
                def answer(request, context):
                    if details.method.endswith("FunctionGetOutputs"):
                        context.abort(grpc.StatusCode.PERMISSION_DENIED, "the call is another workspace's")
                    return b""

                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers([Refusing()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(server.stop, None)
        there = {"MODAL_SERVER_URL": f"http://127.0.0.1:{port}", "AIRFLOW__MODAL_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False"}
        with mock.patch.dict(os.environ, there):
            executor = self.executor()
            ti = task_instance(key_of("succeed"), "fc-01J0000000000000000000000A")
            executor.try_adopt_task_instances([ti])
            self.assertEqual(self.end_of(executor, ti.key), ["failed"])
        self.assertIn("the call is another workspace's", self.info(ti.key))
        self.assert_idle(executor)


class HeartbeatCase(Case):
    def test_a_heartbeat_waits_for_nobody(self):
        executor = self.executor()
        keys = [self.queue(executor, "hang") for _ in range(7)]
        for key in keys:
            self.call_id(executor, key)
        host = executor.line._process.process.pid
        os.kill(host, signal.SIGSTOP)
        try:
            started = time.monotonic()
            for _ in range(20):
                executor.sync()
            self.assertLess(time.monotonic() - started, 0.2)
        finally:
            os.kill(host, signal.SIGCONT)
        executor.terminate()

    def test_one_question_serves_all_tasks(self):
        executor = self.executor()
        keys = [self.queue(executor, "hang") for _ in range(7)]
        for key in keys:
            self.call_id(executor, key)
        asked = []
        observe = executor.line._stub.Observe
        executor.line._stub.Observe = SimpleNamespace(
            future=lambda request, **options: asked.append(len(request.calls)) or observe.future(request, **options)
        )
        last = self.queue(executor, "exit_1")
        self.assertEqual(self.end_of(executor, last), ["failed"])
        self.assertTrue(asked)
        self.assertTrue(all(calls >= 7 for calls in asked), asked)
        self.assertLess(len(asked), 12)
        executor.terminate()


class TakenBackCase(Case):
    def test_a_revoked_task_leaves_nothing(self):
        executor = self.executor()
        key = self.queue(executor, "hang")
        call_id = self.call_id(executor, key)
        executor.revoke_task(ti=task_instance(key, call_id))
        self.beat(executor)
        self.assertEqual(set(self.states(key)), {"queued"})
        self.assert_idle(executor)
        self.assertEqual(end_on_modal(call_id), "cancelled")

    def test_a_task_that_is_revoked_before_its_start_never_hangs_on(self):
        executor = self.executor()
        key = self.queue(executor, "hang")
        executor.revoke_task(ti=task_instance(key, None))
        self.beat(executor)
        self.assert_idle(executor)
        # Long enough for the other to begin as well; the host leaves when what shall end has ended.
        self.end_of(executor, self.queue(executor, "slow"))
        executor.line.stop()
        calls = calls_of(key)
        self.assertEqual([end_on_modal(call_id) for call_id in calls], ["cancelled"] * len(calls))

    @unittest.skipUnless(IS_AIRFLOW_2, "Airflow 3 revokes each")
    def test_stuck_tasks_are_cleaned_up(self):
        executor = self.executor()
        key = self.queue(executor, "hang")
        call_id = self.call_id(executor, key)
        self.assertEqual(len(executor.cleanup_stuck_queued_tasks([task_instance(key, call_id)])), 1)
        self.assert_idle(executor)
        self.assertEqual(end_on_modal(call_id), "cancelled")

    def test_a_zombie_is_ended(self):
        """The scheduler misses its heartbeat and fails it."""
        executor = self.executor()
        key = self.queue(executor, "hang")
        call_id = self.call_id(executor, key)
        executor.change_state(key, "failed", remove_running=True)
        self.beat(executor)
        self.assert_idle(executor)
        self.assertEqual(end_on_modal(call_id), "cancelled")

    def test_terminate_ends_all(self):
        executor = self.executor()
        calls = [self.call_id(executor, self.queue(executor, "hang")) for _ in range(3)]
        executor.terminate()
        self.assertEqual([end_on_modal(call_id) for call_id in calls], ["cancelled"] * 3)
        self.assertIsNone(executor.line._process)


class AdoptionCase(Case):
    def test_the_next_scheduler_takes_calls_over(self):
        first = self.executor()
        key = self.queue(first, "slow")
        call_id = self.call_id(first, key)
        first.end()
        second = self.executor()
        lost = task_instance(key_of("lost"), None)
        self.assertEqual(second.try_adopt_task_instances([task_instance(key, call_id), lost]), [lost])
        self.assertEqual(second.running, {key})
        self.assertEqual(self.end_of(second, key), ["success"])
        self.assertEqual(starts(key), 1)
        self.assert_idle(second)

    def test_taking_over_is_timed(self):
        from modalflow.executor import modal_executor

        timed = []
        timer = modal_executor._stats.timer
        with mock.patch.object(modal_executor._stats, "timer", lambda name: timed.append(name) or timer(name)):
            self.assertEqual(self.executor(start=False).try_adopt_task_instances([]), [])
        self.assertEqual(timed, ["modal_executor.adopt_task_instances.duration"])

    def test_an_earlier_trys_call_is_not_taken_over_for_a_later_try(self):
        """Airflow before 3.2 leaves the earlier id in the row."""
        executor, key = self.executor(start=False), key_of("hang", try_number=2)
        executor.line.spawn = lambda *_: None
        row = task_instance(key, "fc-of-the-first-try")
        self.queue(executor, "hang", key=key)
        # The scheduler's next loop, before Modal has answered.
        self.beat(executor)
        (row.external_executor_id,) = [info for state, info in self.events[key] if state == "queued"]
        self.assertEqual(self.executor(start=False).try_adopt_task_instances([row]), [row])

    def test_a_lost_containers_call_is_not_taken_over(self):
        executor, key = self.executor(start=False), key_of("hang")
        executor.line.spawn = lambda *_: None
        self.queue(executor, "hang", key=key)
        (uuid,) = executor.calls
        for news in (Started(uuid, "fc-1"), Ended(uuid, "PLATFORM_FAULT", "no container", "", "fc-1")):
            executor.line._news.put(news)
            self.beat(executor)
        self.assertEqual(self.states(key)[-1], "queued")
        row = task_instance(key, self.info(key))
        self.assertEqual(self.executor(start=False).try_adopt_task_instances([row]), [row])

    def test_the_last_event_is_the_later_trys(self):
        """The scheduler heeds one event of a task, the last."""
        executor = self.executor(start=False)
        executor.line.spawn = lambda *_: None
        tries = [key_of("hang", try_number=number) for number in (1, 2)]
        self.queue(executor, "hang", key=tries[0])
        (first,) = executor.calls
        executor.line._news.put(Started(first, "fc-1"))
        self.beat(executor)
        self.queue(executor, "hang", key=tries[1])
        _, second = executor.calls
        for news in (Started(second, "fc-2"), Ended(first, "DIED", "killed", "", "fc-1")):
            executor.line._news.put(news)
        executor.sync()
        self.assertEqual([(key.try_number, info) for key, (_, info) in executor.event_buffer.items()], [(1, "killed"), (2, "fc-2")])

    def test_a_call_whose_id_was_never_stored_ends_with_its_scheduler(self):
        executor = self.executor()
        key = self.queue(executor, "hang")
        wait(lambda: starts(key) == 1, "the call to run")
        wait(lambda: executor.sync() or any(call.call_id for call in executor.calls.values()), "its id")
        (call,) = executor.calls.values()
        executor.end()
        self.assertEqual(end_on_modal(call.call_id), "cancelled")

    def test_end_waits_as_long_as_it_is_told(self):
        os.environ["AIRFLOW__MODAL_EXECUTOR__END_WAIT_TIMEOUT"] = "60"
        self.addCleanup(os.environ.pop, "AIRFLOW__MODAL_EXECUTOR__END_WAIT_TIMEOUT")
        executor = self.executor()
        key = self.queue(executor, "slow")
        self.call_id(executor, key)
        executor.end()
        self.assertEqual(executor.event_buffer[key][0], "success")

    def test_end_waits_for_nothing_that_is_over(self):
        os.environ["AIRFLOW__MODAL_EXECUTOR__END_WAIT_TIMEOUT"] = "120"
        self.addCleanup(os.environ.pop, "AIRFLOW__MODAL_EXECUTOR__END_WAIT_TIMEOUT")
        executor = self.executor()
        self.queue(executor, "succeed")
        # It begins and ends between two looks of the scheduler.
        wait(lambda: not executor.line._open and executor.line._news.qsize() == 2, "the end")
        began = time.monotonic()
        executor.end()
        self.assertLess(time.monotonic() - began, 60)

    def test_nothing_is_started_again_while_the_scheduler_ends(self):
        os.environ["AIRFLOW__MODAL_EXECUTOR__END_WAIT_TIMEOUT"] = "120"
        self.addCleanup(os.environ.pop, "AIRFLOW__MODAL_EXECUTOR__END_WAIT_TIMEOUT")
        executor = self.executor(start=False)
        spawned = []
        executor.line.spawn = lambda uuid, *_: spawned.append(uuid)
        self.queue(executor, "hang")
        (uuid,) = executor.calls
        executor.line._news.put(Ended(uuid, "PLATFORM_FAULT", "no container", "", "fc-1"))
        began = time.monotonic()
        executor.end()
        self.assertLess(time.monotonic() - began, 60)
        self.assertEqual(spawned, [uuid])

    def test_the_host_ends_with_its_owner(self):
        script = (
            "import os, sys, time\n"
            "import support\n"
            "executor = support.ModalExecutor()\n"
            "executor.start()\n"
            "support.wait(lambda: executor.line._stub is not None, 'a host')\n"
            "print(executor.line._process.process.pid, executor.line._process.folder, flush=True)\n"
            "time.sleep(600)\n"
        )
        environment = {**os.environ, "AIRFLOW__MODAL_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False"}
        owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment, cwd=os.path.dirname(__file__))
        host, folder = 0, ""
        for line in owner.stdout:
            if line.split(" ")[0].isdigit():
                host, folder = int(line.split()[0]), line.split()[1]
                break
        self.assertTrue(is_alive(host))
        self.assertTrue(os.path.isdir(folder))
        owner.kill()
        owner.wait()
        owner.stdout.close()
        wait(lambda: not is_alive(host), "the host's end", 10)
        self.assertFalse(os.path.exists(folder))

    def test_a_missing_host_leaves_no_folder(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        missing = mock.patch("modalflow.host.binary", side_effect=HostUnavailable("there is none"))
        with mock.patch("tempfile.tempdir", folder), missing, self.assertRaises(HostUnavailable):
            HostProcess(Target("app", "function"))
        self.assertEqual(os.listdir(folder), [])


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


    def test_a_host_that_waits_for_modal_too_long_is_told_in_words(self):
        executor = self.executor()
        host = executor.line._process.process.pid
        os.kill(host, signal.SIGSTOP)
        try:
            with self.assertRaisesRegex(HostUnavailable, "^Modal did not answer within 1 s$"):
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


class SettingsCase(Case):
    def test_parallelism_is_airflows(self):
        self.assertEqual(self.executor(start=False).parallelism, 7)

    def test_executors_stand_side_by_side(self):
        one, other = self.executor(), self.executor()
        keys = self.queue(one, "succeed"), self.queue(other, "exit_1")
        self.assertEqual(self.end_of(one, keys[0]), ["success"])
        self.assertEqual(self.end_of(other, keys[1]), ["failed"])

    @unittest.skipIf(IS_AIRFLOW_2, "Airflow 2 has no teams")
    def test_a_team_has_its_own_executor(self):
        if AIRFLOW_VERSION >= (3, 2):
            os.environ["AIRFLOW__RED___MODAL_EXECUTOR__APP_NAME"] = "red"
            self.addCleanup(os.environ.pop, "AIRFLOW__RED___MODAL_EXECUTOR__APP_NAME")
        executor = self.executor(start=False, team_name="red")
        self.assertEqual(executor.team_name, "red")
        if AIRFLOW_VERSION >= (3, 2):
            self.assertEqual(executor.settings.app_name, "red")
            self.assertTrue(ModalExecutor.supports_multi_team)

    def test_a_missing_deployment_stops_the_scheduler_with_a_hint(self):
        os.environ["AIRFLOW__MODAL_EXECUTOR__APP_NAME"] = f"{APP}-gone"
        self.addCleanup(os.environ.__setitem__, "AIRFLOW__MODAL_EXECUTOR__APP_NAME", APP)
        executor = self.executor(start=False)
        with self.assertRaisesRegex(RuntimeError, "(?s)no function.*hint: .airflow modalflow deploy"):
            executor.start()

    @unittest.skipIf(LIVE, "the real token is needed")
    def test_a_wrong_token_stops_the_scheduler(self):
        os.environ["AIRFLOW_CONN_MODAL_WRONG"] = "modal://ak-wrong:as-wrong@/?environment=main"
        os.environ["AIRFLOW__MODAL_EXECUTOR__CONN_ID"] = "modal_wrong"
        self.addCleanup(os.environ.__setitem__, "AIRFLOW__MODAL_EXECUTOR__CONN_ID", "")
        executor = self.executor(start=False)
        with self.assertRaisesRegex(RuntimeError, "not signed in"):
            executor.start()

    @unittest.skipIf(LIVE, "the emulator's token is known")
    def test_the_connection_has_the_token(self):
        use_token(self, *take_token(self))
        executor = self.executor()
        key = self.queue(executor, "exit_1")
        self.assertEqual(self.end_of(executor, key), ["failed"])

    @unittest.skipIf(LIVE, "the emulator's token is known")
    def test_a_changed_token_starts_all_tasks_that_the_old_one_could_not(self):
        right = take_token(self)
        use_token(self, "ak-old", "as-old")
        os.environ["AIRFLOW__MODAL_EXECUTOR__CHECK_HEALTH_ON_STARTUP"] = "False"
        self.addCleanup(os.environ.pop, "AIRFLOW__MODAL_EXECUTOR__CHECK_HEALTH_ON_STARTUP")
        executor = self.executor()
        wait(lambda: executor.line._stub is not None, "a host with the old token")
        use_token(self, *right)
        keys = [self.queue(executor, "succeed") for _ in range(3)]
        self.assertEqual(self.end_of(executor, *keys), ["success"] * 3)
        self.assertEqual([starts(key) for key in keys], [1] * 3)
        self.assert_idle(executor)

    @unittest.skipIf(LIVE, "the emulator's token is known")
    def test_a_changed_token_follows_all_tasks_that_the_old_one_could_not(self):
        right = take_token(self)
        use_token(self, *right)
        executor = self.executor()
        keys = [self.queue(executor, "slow") for _ in range(7)]
        for key in keys:
            self.call_id(executor, key)
        use_token(self, "ak-revoked", "as-revoked")
        heard = []
        has_new_target = executor.line._has_new_target
        executor.line._has_new_target = lambda: heard.append(has_new_target()) or heard[-1]
        with mock.patch("modalflow.executor.line.OBSERVE_SECONDS", 1.0):
            # The next host has the token that Modal does not take.
            os.kill(executor.line._process.process.pid, signal.SIGKILL)
            self.until(executor, lambda: heard, "that the token is revoked")
            self.assertEqual((heard[0], executor.slots_available), (False, 0))
            use_token(self, *right)
            self.assertEqual(self.end_of(executor, *keys), ["success"] * 7)
        self.assertEqual([starts(key) for key in keys], [1] * 7)
        self.assert_idle(executor)

    @unittest.skipIf(LIVE, "the emulator's token is known")
    def test_a_connection_that_cannot_be_read_ends_no_scheduler(self):
        take_token(self)
        use_token(self, "ak-old", "as-old")
        os.environ["AIRFLOW__MODAL_EXECUTOR__CHECK_HEALTH_ON_STARTUP"] = "False"
        self.addCleanup(os.environ.pop, "AIRFLOW__MODAL_EXECUTOR__CHECK_HEALTH_ON_STARTUP")
        executor = self.executor()
        wait(lambda: executor.line._stub is not None, "a host")
        executor.line._target = lambda: (_ for _ in ()).throw(OSError("the vault is away"))
        with self.assertLogs("modalflow.executor.line", "ERROR") as said:
            key = self.queue(executor, "succeed")
            self.assertEqual(self.end_of(executor, key), ["failed"])
        self.assertIn("the vault is away", "".join(said.output))
        self.assertIn("not signed in", self.info(key))

    def test_airflow_knows_the_provider(self):
        from airflow.providers_manager import ProvidersManager

        manager = ProvidersManager()
        self.assertIn("modalflow", manager.providers)
        self.assertIn("modalflow.executor.modal_executor.ModalExecutor", manager.executor_class_names)
        options = manager.providers["modalflow"].data["config"]["modal_executor"]["options"]
        for name, option in options.items():
            self.assertEqual(set(option), {"description", "version_added", "type", "example", "default"}, name)
        if AIRFLOW_VERSION >= (3, 2):
            # Earlier ones read what providers say when their commands start.
            self.assertEqual(airflow_conf.get("modal_executor", "function_name"), "run_workload")


@unittest.skipIf(LIVE, "Modal itself is not switched off")
class AwayCase(Case):
    def test_tasks_wait_while_modal_is_away_and_none_is_lost(self):
        executor = self.executor()
        running = [self.queue(executor, "slow") for _ in range(2)]
        for key in running:
            self.call_id(executor, key)
        Modal.process.kill()
        Modal.process.wait()
        late = [self.queue(executor, "succeed") for _ in range(2)]
        time.sleep(1.0)
        self.beat(executor)
        self.assertEqual([self.call_ids(key) for key in late], [[], []])
        Modal.launch(Modal.port)
        self.assertEqual(self.end_of(executor, *running, *late), ["success"] * 4)
        self.assertEqual([starts(key) for key in running + late], [1] * 4)
        self.assert_idle(executor)


class DeployedAgainCase(Case):
    def test_an_app_that_was_stopped_and_deployed_again_is_found(self):
        executor = self.executor()
        small = {"memory": 256}
        before = [self.queue(executor, "succeed"), self.queue(executor, "succeed", executor_config=small)]
        self.assertEqual(self.end_of(executor, *before), ["success"] * 2)
        subprocess.run([sys.executable, "-m", "modal", "app", "stop", "--yes", APP], check=True, capture_output=True)
        Modal.deploy()
        after = [self.queue(executor, "succeed"), self.queue(executor, "succeed", executor_config=small)]
        self.assertEqual(self.end_of(executor, *after), ["success"] * 2)
        self.assertEqual([starts(key) for key in before + after], [1] * 4)


def task_instance(key: TaskInstanceKey, call_id: str | None):
    return SimpleNamespace(key=key, external_executor_id=call_id, try_number=key.try_number, id="x")


def stop_containers() -> None:
    """Each starts its input again in another one."""
    modal = [sys.executable, "-m", "modal", "container"]
    listed = subprocess.run([*modal, "list", "--json"], check=True, capture_output=True, text=True)
    for container in json.loads(listed.stdout):
        container_id = next(value for value in container.values() if str(value).startswith("ta-"))
        subprocess.run([*modal, "stop", "--yes", container_id], check=True, capture_output=True)
def take_token(case) -> tuple[str, str]:
    """Takes the token out of Modal's variables, until the case is over."""
    names = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")
    for name in names:
        case.addCleanup(os.environ.__setitem__, name, os.environ[name])
    return tuple(os.environ.pop(name) for name in names)


def use_token(case, token_id: str, secret: str) -> None:
    """Puts a token into the connection."""
    os.environ["AIRFLOW_CONN_MODAL_OF_CASE"] = f"modal://{token_id}:{secret}@/?environment=main"
    os.environ["AIRFLOW__MODAL_EXECUTOR__CONN_ID"] = "modal_of_case"
    case.addCleanup(os.environ.__setitem__, "AIRFLOW__MODAL_EXECUTOR__CONN_ID", "")


def end_on_modal(call_id: str) -> str:
    """How a call went out, in the words of Modal's own client."""
    import modal

    try:
        modal.FunctionCall.from_id(call_id).get(timeout=60)
    except modal.exception.InputCancellation:
        return "cancelled"
    except modal.exception.RemoteError as error:
        # A call that was being worked on has no reason, one that still waited has.
        return "cancelled" if str(error) == "" or "cancelled" in str(error) else repr(error)
    except Exception as error:
        return repr(error)
    return "returned"


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    unittest.main()

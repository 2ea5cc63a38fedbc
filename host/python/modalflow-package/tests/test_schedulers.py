"""Schedulers that take tasks back, end, and take calls over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from support import IS_AIRFLOW_2, Case, Modal, calls_of, key_of, starts, task_instance, wait

from modalflow.executor.line import Ended, Started
from modalflow.host import HostProcess, HostUnavailable, Target


def setUpModule():
    Modal.start()


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

    def test_a_task_whose_host_died_before_it_told_of_the_call_leaves_nothing(self):
        executor = self.executor()
        executor.line._hear = lambda observations: None
        key = self.queue(executor, "hang")
        wait(lambda: starts(key) == 1, "the call to run")
        os.kill(executor.line._process.process.pid, signal.SIGKILL)
        executor.revoke_task(ti=task_instance(key, None))
        wait(lambda: not executor.line._open and not executor.line._wishes.cancel, "that the next host has heard of it")
        executor.line.stop()
        (call_id,) = calls_of(key)
        self.assertEqual(end_on_modal(call_id), "cancelled")

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

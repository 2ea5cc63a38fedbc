"""How calls start and end, and what a heartbeat costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import grpc

from support import APP, IS_AIRFLOW_2, LIVE, TOKEN, Case, Modal, key_of, starts, task_instance, wait

from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow.executor.line import Ended
from modalflow.executor.modal_executor import AIRFLOW_VERSION


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

    def test_a_fault_of_a_deferred_tasks_first_half_starts_nothing(self):
        """Its call lost its container while it left; the second half may have begun by then, or begin before the next start."""
        for order in ("fault comes late", "fault comes first"):
            with self.subTest(order):
                executor, spawned = self.executor(start=False), []
                executor.line.spawn = lambda uuid, *_: spawned.append(uuid)
                key = self.queue(executor, "slow")
                (first,) = executor.calls
                fault = Ended(first, "PLATFORM_FAULT", "no container", "", "fc-1")
                if order == "fault comes first":
                    executor.line._news.put(fault)
                    self.beat(executor)
                self.queue(executor, "slow", key=key)
                if order == "fault comes late":
                    executor.line._news.put(fault)
                self.beat(executor)
                with mock.patch("time.monotonic", lambda: float("inf")):
                    self.beat(executor)
                _, second = spawned
                self.assertEqual(executor.current, {key: second})
                self.assertEqual(list(executor.calls), [second])
                executor.line._news.put(Ended(second, "RETURNED", "", '{"exit_code": 0}', "fc-2"))
                self.assertEqual(self.end_of(executor, key), ["success"])
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
    def test_only_what_is_said_of_the_call_itself_is_its_end(self):
        """A token that lost its rights for a while, a server that is being changed: the call goes on meanwhile."""
        answers = [
            (grpc.StatusCode.PERMISSION_DENIED, "this token may not"),
            (grpc.StatusCode.FAILED_PRECONDITION, "the client version is too old"),
            (grpc.StatusCode.ABORTED, "not now"),
            (grpc.StatusCode.INVALID_ARGUMENT, "this is no call"),
        ]
        said = []

        class Refusing(grpc.GenericRpcHandler):
            def service(self, details):
                def answer(request, context):
                    if details.method.endswith("FunctionGetOutputs"):
                        said.append(answers[min(len(said), len(answers) - 1)])
                        context.abort(*said[-1])
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
        self.assertIn("this is no call", self.info(ti.key))
        self.assertEqual(said, answers)
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


def stop_containers() -> None:
    """Each starts its input again in another one."""
    modal = [sys.executable, "-m", "modal", "container"]
    listed = subprocess.run([*modal, "list", "--json"], check=True, capture_output=True, text=True)
    for container in json.loads(listed.stdout):
        container_id = next(value for value in container.values() if str(value).startswith("ta-"))
        subprocess.run([*modal, "stop", "--yes", container_id], check=True, capture_output=True)

"""Settings, tokens, and a Modal that is away or has another deployment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from support import APP, IS_AIRFLOW_2, LIVE, Case, Modal, starts, task_instance, wait

from airflow.configuration import conf as airflow_conf

from modalflow.executor.modal_executor import AIRFLOW_VERSION, ModalExecutor


def setUpModule():
    Modal.start()


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

    def test_whoever_only_reads_logs_finds_it_too(self):
        executor, reader = self.executor(), self.executor(start=False)

        def read() -> None:
            key = self.queue(executor, "hang")
            ti = task_instance(key, self.call_id(executor, key))
            wait(lambda: starts(key) == 1, "the call to run")
            wait(lambda: "hang begins" in "".join(reader.get_task_log(ti, 1)[1]), "the line", 20)
            executor.revoke_task(ti=ti)

        read()
        subprocess.run([sys.executable, "-m", "modal", "app", "stop", "--yes", APP], check=True, capture_output=True)
        Modal.deploy()
        read()


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

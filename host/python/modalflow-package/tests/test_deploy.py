"""What `airflow modalflow deploy` brings to Modal."""

from __future__ import annotations

import json
import unittest
from configparser import ConfigParser
from pathlib import Path
from unittest import mock

from support import FOLDER, LIVE, SUFFIX, Modal

from modalflow import deploy as deployment_module
from modalflow.deploy import Deployment, _ignore, deploy, make_app, make_image
from modalflow.executor.settings import LOGS
from modalflow.same_airflow import variables_of


def setUpModule():
    Modal.start()


class DeployCase(unittest.TestCase):
    def setUp(self):
        self.dags = FOLDER / f"dags-{self.id().rsplit('.', 1)[1]}"
        (self.dags / "__pycache__").mkdir(parents=True)
        (self.dags / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"stale")
        (self.dags / "a.py").write_text("a = 1\n")
        (self.dags / "notes").mkdir()
        (self.dags / "notes" / "secret.txt").write_text("not for the cloud\n")
        (self.dags / ".modalignore").write_text("# ours\nnotes\n")

    def deployment(self, **options) -> Deployment:
        given = {"app_name": f"modalflow-deploy-{SUFFIX}", "function_name": "run_workload", "airflow_version": "3.3.2", "dags": str(self.dags)}
        return Deployment(**{**given, **options})

    def test_caches_and_what_is_ignored_stay_here(self):
        from modal.file_pattern_matcher import FilePatternMatcher

        is_ignored = FilePatternMatcher(*_ignore(str(self.dags)))
        found = sorted(str(path.relative_to(self.dags)) for path in self.dags.rglob("*") if path.is_file())
        self.assertEqual([path for path in found if not is_ignored(Path(path))], [".modalignore", "a.py"])

    @unittest.skipIf(LIVE, "an image takes minutes there")
    def test_packages_secrets_and_resources_are_deployed(self):
        import modal

        requirements = FOLDER / "requirements.txt"
        requirements.write_text("humanize==4.9.0\n")
        modal.Secret.objects.create("probe-secret", {"WORD": "hush"}, allow_existing=True)
        options = {"cpu": 2.0, "memory": 1024, "region": "us-east", "timeout": 1200}
        deployment = self.deployment(
            requirements=[str(requirements)], secrets=["probe-secret"], volume_name="probe-logs", function_options=options
        )
        # Modal's client sees all of it, and deploys it.
        function, install = modal.App.function, modal.Image.uv_pip_install
        with mock.patch.object(modal.App, "function", autospec=True, side_effect=function) as functions:
            with mock.patch.object(modal.Image, "uv_pip_install", autospec=True, side_effect=install) as installed:
                app_id = deploy(deployment, {})
        (made,) = [call.kwargs for call in functions.call_args_list]
        self.assertEqual({name: made[name] for name in options}, options)
        self.assertEqual((made["name"], made["retries"]), ("run_workload", 0))
        self.assertEqual([secret.name for secret in made["secrets"]], ["probe-secret"])
        self.assertEqual({path: volume.name for path, volume in made["volumes"].items()}, {LOGS: "probe-logs"})
        self.assertEqual([volume.object_id[:3] for volume in made["volumes"].values()], ["vo-"])
        airflow, ours = installed.call_args_list
        self.assertIn("apache-airflow==3.3.2", airflow.args)
        self.assertEqual(ours.kwargs["requirements"], [str(requirements)])
        self.assertTrue(app_id.startswith("ap-"))
        function = modal.Function.from_name(f"modalflow-deploy-{SUFFIX}", "run_workload")
        self.assertTrue(function.hydrate().object_id.startswith("fu-"))

    @unittest.skipIf(LIVE, "an image takes minutes there")
    def test_each_image_that_tasks_may_choose_has_a_function(self):
        import modal

        deploy(self.deployment(images={"pandas": "apache/airflow:3.3.2-pandas"}), {})
        made = [modal.Function.from_name(f"modalflow-deploy-{SUFFIX}", name).hydrate() for name in ("run_workload", "run_workload_pandas")]
        self.assertEqual(len({function.object_id for function in made}), 2)

    def test_the_name_of_an_image_is_one_of_a_function(self):
        with self.assertRaisesRegex(ValueError, "no name of an image: 'a b'"):
            make_app(self.deployment(images={"a b": "python"}))
        with self.assertRaisesRegex(ValueError, "too long"):
            make_app(self.deployment(images={"a" * 60: "python"}))

    def test_an_unknown_option_is_refused_by_name(self):
        with self.assertRaisesRegex(ValueError, "no option of a function: memroy; there are cpu, memory"):
            make_app(self.deployment(function_options={"memroy": 1}))

    @unittest.skipIf(LIVE, "an image takes minutes there")
    def test_a_changed_dag_builds_no_image(self):
        before = self.image_of_deployment()
        (self.dags / "a.py").write_text("a = 2\n")
        self.assertEqual(self.image_of_deployment(), before)

    def image_of_deployment(self) -> str:
        made = []
        with mock.patch.object(deployment_module, "make_image", lambda given: made.append(make_image(given)) or made[0]):
            deploy(self.deployment(), {})
        return made[0].object_id

    def test_tasks_are_no_root(self):
        import modal

        commands = []
        run_commands = modal.Image.run_commands

        def noting(image, *given, **options):
            commands.extend(given)
            return run_commands(image, *given, **options)

        with mock.patch.object(modal.Image, "run_commands", noting):
            make_image(self.deployment())
        self.assertEqual(commands[0], "useradd --uid 50000 --gid 0 --create-home airflow")
        self.assertIn("chown -R 50000:0 /opt/airflow", commands[1])


class SameAirflowCase(unittest.TestCase):
    """What containers are told of the Airflow that deploys."""

    def variables(self, bundles=None, given=None, uploaded="/srv/dags", **of_core) -> dict[str, str]:
        conf = ConfigParser(interpolation=None)
        conf.read_dict({"core": of_core, "dag_processor": {"dag_bundle_config_list": json.dumps(bundles)} if bundles else {}})
        return variables_of(conf, uploaded, "/opt/airflow/dags", given or {})

    def bundles(self, *paths: str) -> list[dict]:
        classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
        return [{"name": f"b{n}", "classpath": classpath, "kwargs": {"path": path}} for n, path in enumerate(paths)]

    def test_all_executors_are_known_there(self):
        both = "LocalExecutor,Modal:modalflow.executor.modal_executor.ModalExecutor"
        self.assertEqual(self.variables(executor=both, parallelism="3"), {"AIRFLOW__CORE__EXECUTOR": both})

    def test_what_the_user_says_holds(self):
        given = {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
        self.assertEqual(self.variables(executor="CeleryExecutor", multi_team="True", given=given), {"AIRFLOW__CORE__MULTI_TEAM": "True"})

    def test_local_bundles_lie_where_the_files_are_uploaded(self):
        git = {"name": "git", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {"path": "x"}}
        told = self.variables([*self.bundles("/srv/dags/", "/srv/dags/red/team"), git])
        first, second, third = json.loads(told["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
        self.assertEqual((first["kwargs"], second["kwargs"]), ({}, {"path": "/opt/airflow/dags/red/team"}))
        self.assertEqual(third, git)

    def test_a_bundle_that_is_not_uploaded_ends_the_deployment(self):
        with self.assertRaisesRegex(ValueError, "(?s)bundle b1 lies in /srv/other.*hint: .*--dags"):
            self.variables(self.bundles("/srv/dags", "/srv/other"))
        self.assertIn("/srv/other", str(self.variables(self.bundles("/srv/other"), uploaded="")))


if __name__ == "__main__":
    unittest.main()

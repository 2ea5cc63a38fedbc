"""What `airflow modalflow deploy` brings to Modal."""

from __future__ import annotations

import unittest
from pathlib import Path
from unittest import mock

from support import FOLDER, LIVE, SUFFIX, Modal

from modalflow import deploy as deployment_module
from modalflow.deploy import Deployment, _ignore, deploy, make_app, make_image


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
        app_id = deploy(
            self.deployment(
                requirements=[str(requirements)],
                secrets=["probe-secret"],
                volume_name="probe-logs",
                function_options={"cpu": 2.0, "memory": 1024, "region": "us-east", "timeout": 1200},
            ),
            {},
        )
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


if __name__ == "__main__":
    unittest.main()

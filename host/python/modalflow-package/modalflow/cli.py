"""`airflow modalflow …`: bring the function to Modal, and look whether all is well."""

from __future__ import annotations

import sys


def commands() -> list:
    """For Airflow's command line; imports nothing heavy."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    deploy_arguments = (
        Arg(("--dags",), help="folder with the DAG files (default: [core] dags_folder); none: --dags ''", default=None),
        Arg(("--image",), help="an image of your own with Airflow of this version, for instance apache/airflow:3.3.2", default=""),
        Arg(
            ("--image-of",),
            help="NAME=REFERENCE: an image that a task may choose with executor_config={'image': 'NAME'}; may be repeated",
            action="append",
            default=[],
        ),
        Arg(("--requirement",), help="requirements file to install; may be repeated", action="append", default=[]),
        Arg(("--variable",), help="NAME=VALUE for the tasks' environment, nothing secret; may be repeated", action="append", default=[]),
    )
    return [
        GroupCommand(
            name="modalflow",
            help="Run tasks on Modal",
            subcommands=[
                ActionCommand(
                    name="deploy",
                    help="Bring the function to Modal that runs the tasks",
                    func=lazy_load_command("modalflow.cli.deploy"),
                    args=deploy_arguments,
                ),
                ActionCommand(
                    name="check",
                    help="Look whether Modal lets us in and has the function",
                    func=lazy_load_command("modalflow.cli.check"),
                    args=(),
                ),
            ],
        )
    ]


def deploy(args) -> None:
    from airflow import __version__ as airflow_version
    from airflow.configuration import conf

    from modalflow.deploy import DAGS, Deployment, deploy
    from modalflow.executor.settings import Settings, target
    from modalflow.same_airflow import variables_of

    settings = Settings.read(conf)
    where = target(settings)
    dags = conf.get("core", "dags_folder") if args.dags is None else args.dags
    given = _pairs(args.variable, "--variable", "NAME=VALUE")
    try:
        same = variables_of(conf, dags, DAGS, given)
    except ValueError as error:
        sys.exit(f"error: {error}")
    deployment = Deployment(
        app_name=settings.app_name,
        function_name=settings.function_name,
        airflow_version=airflow_version,
        environment=where.environment,
        volume_name=settings.volume_name,
        image=args.image,
        images=_pairs(args.image_of, "--image-of", "NAME=REFERENCE"),
        requirements=args.requirement,
        dags=dags,
        secrets=list(settings.secrets),
        variables={**same, **given},
        function_options=settings.function_options,
    )
    try:
        app_id = deploy(deployment, where.variables)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    print(f"{settings.app_name}: {settings.function_name} is on Modal ({app_id})")
    for name, reference in deployment.images.items():
        print(f"  with executor_config={{'image': '{name}'}} on {reference}")


def check(args) -> None:
    from airflow.configuration import conf

    from modalflow.executor.line import Line
    from modalflow.executor.settings import Settings, target

    settings = Settings.read(conf)
    line = Line(lambda: target(settings))
    try:
        health = line.health()
    except Exception as error:
        sys.exit(f"error: {error}")
    finally:
        line.stop()
    if health.problem:
        hint = f"\nhint: {health.hint}" if health.hint else ""
        sys.exit(f"error: {health.problem}{hint}\nhint: `airflow modalflow deploy` brings the function to Modal")
    print(f"{settings.function_name} of {settings.app_name} at {health.server_url}: {health.function_id}")


def _pairs(texts: list[str], option: str, form: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            sys.exit(f"error: {option} {text}\nhint: write {option} {form}")
        pairs[name] = value
    return pairs


"""What a container's Airflow must know of the one that schedules: which executors there are, and which bundles and teams. Without
it a DAG file with `executor="…"` is an import error there. Nothing else of the configuration travels."""

from __future__ import annotations

import json
import os
from pathlib import Path

BUNDLES = ("dag_processor", "dag_bundle_config_list")
OPTIONS = (("core", "executor"), ("core", "multi_team"), BUNDLES)


def variables_of(conf, uploaded: str, folder: str, given: dict[str, str]) -> dict[str, str]:
    """As variables of a container whose `folder` has the DAG files of `uploaded`; empty: nothing is uploaded. What is `given` is
    said by the user."""
    variables = {}
    for section, option in OPTIONS:
        name = f"AIRFLOW__{section}__{option}".upper()
        # Airflow before 3 knows the first alone.
        value = conf.get(section, option, fallback="") or ""
        if not value or name in given:
            continue
        if (section, option) == BUNDLES and uploaded:
            value = _bundles_there(value, Path(uploaded).resolve(), folder)
        variables[name] = value
    return variables


def _bundles_there(text: str, uploaded: Path, folder: str) -> str:
    """The list of bundles with the local ones where they are in the container."""
    try:
        bundles = json.loads(text)
    except ValueError as error:
        raise ValueError(f"[dag_processor] dag_bundle_config_list is no JSON: {error}") from None
    for bundle in bundles:
        options = bundle.get("kwargs") or {}
        if not bundle.get("classpath", "").endswith(".LocalDagBundle") or not options.get("path"):
            continue
        path = Path(os.path.expanduser(options["path"])).resolve()
        if path == uploaded:
            # [core] dags_folder, here and there.
            del options["path"]
        elif uploaded in path.parents:
            options["path"] = f"{folder}/{path.relative_to(uploaded).as_posix()}"
        else:
            raise ValueError(
                f"bundle {bundle.get('name')} lies in {path}, and containers get {uploaded} alone\n"
                "hint: put both below one folder and name that with --dags, take a bundle that is fetched (git, an object store), "
                "or say what containers have with --variable AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=…"
            )
    return json.dumps(bundles)

"""Airflow's bundled example DAGs as cases: from the installed packages, unchanged; which do not take part, and why. Beside
them the histories of partitions, of which the examples show little without waiting for hours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import partitions
from play import Case

CORE, STANDARD = "airflow.example_dags", "airflow.providers.standard.example_dags"
WHEN = "2026-01-05T00:00:00+00:00"

# Each DAG of these gets one manual run with a fixed logical date and is compared by that run.
MANUAL = {
    CORE: {
        "example_asset_allow_teams": ["team_analytics_producer"],
        "example_branch_labels": ["example_branch_labels"],
        "example_branch_python_dop_operator_3": ["example_branch_dop_operator_v3"],
        "example_complex": ["example_complex"],
        "example_custom_weight": ["example_custom_weight"],
        "example_display_name": ["example_display_name"],
        "example_dynamic_task_mapping": [
            "example_dynamic_task_mapping",
            "example_task_mapping_second_order",
            "example_task_group_mapping",
        ],
        "example_dynamic_task_mapping_with_no_taskflow_operators": ["example_dynamic_task_mapping_with_no_taskflow_operators"],
        "example_failed_dag": ["example_failed_dag"],
        "example_latest_only_with_trigger": ["latest_only_with_trigger"],
        "example_nested_branch_dag": ["example_nested_branch_dag"],
        "example_outlet_event_extra": [
            "asset_with_extra_by_yield",
            "asset_with_extra_by_context",
            "asset_with_extra_from_classic_operator",
        ],
        "example_params_trigger_ui": ["example_params_trigger_ui"],
        "example_passing_params_via_test_command": ["example_passing_params_via_test_command"],
        "example_setup_teardown": ["example_setup_teardown"],
        "example_setup_teardown_taskflow": ["example_setup_teardown_taskflow"],
        "example_simplest_dag": ["example_simplest_dag"],
        "example_skip_dag": ["example_skip_dag"],
        "example_task_group": ["example_task_group"],
        "example_task_group_decorator": ["example_task_group_decorator"],
        "example_task_state_store": ["example_task_state_store"],
        "example_task_state_store_mapped": ["example_task_state_store_mapped"],
        "example_time_delta_sensor_async": ["example_time_delta_sensor_async"],
        "example_trigger_target_dag": ["example_trigger_target_dag"],
        "example_workday_timetable": ["example_workday_timetable"],
        "example_xcom": ["example_xcom"],
        "example_xcomargs": ["example_xcom_args", "example_xcom_args_with_operators"],
        "tutorial": ["tutorial"],
        "tutorial_dag": ["tutorial_dag"],
        "tutorial_taskflow_api": ["tutorial_taskflow_api"],
        "tutorial_taskflow_templates": ["tutorial_taskflow_templates"],
    },
    STANDARD: {
        "example_bash_decorator": ["example_bash_decorator"],
        "example_bash_operator": ["example_bash_operator"],
        "example_branch_datetime_operator": ["example_branch_datetime_operator", "example_branch_datetime_operator_3"],
        "example_branch_day_of_week_operator": ["example_weekday_branch_operator"],
        "example_latest_only": ["latest_only"],
        "example_measurement_correction_decorator": ["example_measurement_correction_decorator"],
        "example_measurement_correction_operator": ["example_measurement_correction_operator"],
        "example_sensor_decorator": ["example_sensor_decorator"],
        "example_short_circuit_decorator": ["example_short_circuit_decorator"],
        "example_short_circuit_operator": ["example_short_circuit_operator"],
    },
}


def one_after_the_other(name: str, package: str, file: str, producers: list[str], consumers: dict[str, int]) -> tuple:
    """Producers run in turn; then each consumer has had so many runs."""
    history = []
    for producer in producers:
        history += [["trigger", producer, "golden", {}], ["run", producer, "golden", "finished"]]
    history += [["runs", consumer, count] for consumer, count in consumers.items()]
    return name, package, file, [*producers, *consumers], history


# Those that need more than one run of one DAG.
SPECIAL = [
    one_after_the_other(
        "asset_s3_bucket", CORE, "example_asset_alias", ["asset_s3_bucket_producer"], {"asset_s3_bucket_consumer": 1}
    ),
    one_after_the_other(
        "asset_s3_bucket_with_no_taskflow",
        CORE,
        "example_asset_alias_with_no_taskflow",
        ["asset_s3_bucket_producer_with_no_taskflow"],
        {"asset_s3_bucket_consumer_with_no_taskflow": 1},
    ),
    one_after_the_other(
        "asset_decorator",
        CORE,
        "example_asset_decorator",
        ["asset1_producer", "asset2_producer"],
        {"consumes_asset_decorator": 2},
    ),
    one_after_the_other(
        "assets",
        CORE,
        "example_assets",
        ["asset_produces_2"],
        {
            "consume_1_or_2_with_asset_expressions": 1,
            "asset_consumes_1_and_2": 0,
            "consume_1_and_2_with_asset_expressions": 0,
            "consume_1_or_both_2_and_3_with_asset_expressions": 0,
        },
    ),
    one_after_the_other(
        "asset_state_store",
        CORE,
        "example_asset_state_store",
        ["example_asset_state_store_producer"],
        {"example_asset_state_store_consumer": 1},
    ),
    one_after_the_other(
        "regional_sales", CORE, "example_asset_partition", ["ingest_regional_sales"], {"aggregate_regional_sales": 3}
    ),
    one_after_the_other(
        "live_region",
        CORE,
        "example_asset_partition",
        ["live_region_player_stats"],
        {"summarize_live_region_stats": 1},
    ),
    one_after_the_other(
        "segment_rollup",
        CORE,
        "example_asset_partition",
        ["multi_region_player_stats"],
        {"segment_region_stats_rollup": 1},
    ),
    (
        "region_stats",
        CORE,
        "example_asset_partition",
        ["ingest_region_stats", "regional_stats_breakdown"],
        [
            ["trigger", "ingest_region_stats", "golden", {"partition_key": "us"}],
            ["run", "ingest_region_stats", "golden", "finished"],
            ["runs", "regional_stats_breakdown", 1],
            ["trigger", "ingest_region_stats", "unknown", {"partition_key": "mars"}],
            ["run", "ingest_region_stats", "unknown", "finished"],
        ],
    ),
    (
        "trigger_controller",
        STANDARD,
        "example_trigger_controller_dag",
        ["example_trigger_controller_dag"],
        [
            ["trigger", "example_trigger_controller_dag", "golden", {"logical_date": WHEN}],
            ["run", "example_trigger_controller_dag", "golden", "finished"],
        ],
    ),
]

# Tasks whose XComs are drawn at random, or tell the time.
CHANCE = ["run_job", "process_table", "print_date", "load"]

# Do not take part, on neither side.
LEFT_OUT = {
    "example_branch_datetime_operator_2": "depends on the hour",
    "asset_alias_example_alias_consumer": "an alias consumer runs once the alias is resolved and the file is parsed again: when, is chance",
    "ingest_team_a_player_stats": "hourly by the clock, as the other sources of example_asset_partition; train_weekly_model weekly",
    "example_asset_with_watchers": "waits until somebody touches three files",
    "example_branch_operator": "draws its branch at random, as does example_branch_operator_decorator",
    "example_dag_decorator": "asks a server in the internet, as do example_retry_policy (six minutes) and tutorial_objectstorage",
    "example_external_task": "its @once run looks for a sibling of the same logical date for up to seven days, as does the marker's child",
    "example_hitl_operator": "waits for a person",
    "example_inlet_event_extra": "its result depends on which of two files is parsed first: they give one URI two names",
    "example_kubernetes_executor": "has no DAG without Kubernetes, nor has example_local_kubernetes_executor",
    "example_params_ui_tutorial": "its defaults contain today's date, so its DAG changes every day",
    "example_python_operator": "makes virtualenvs from PyPI, as do example_python_decorator and tutorial_taskflow_api_virtualenv",
    "example_sensors": "depends on the weekday and the hour",
    "example_task_state_store_async": "three tries, five minutes between them",
}

# What modalflow does not do yet. A case of these that comes to equal Airflow fails the test: then its line goes.
NOT_YET: dict[str, str] = {}

# What these files bring beside their DAG.
BESIDE = {
    CORE: ["sql/tutorial_taskflow_template.sql"],
}
# Airflow loads its examples' plugins only together with all examples.
PLUGINS = """from airflow.example_dags.plugins.decreasing_priority_weight_strategy import DecreasingPriorityWeightStrategyPlugin
from airflow.example_dags.plugins.workday import WorkdayTimetablePlugin
"""


def is_race(case: Case, golden: dict) -> bool:
    """None of them is: chance is left out above."""
    return False


def folder(package: str) -> Path:
    return Path(find_spec(package).origin).parent


def files(cases: list[Case]) -> dict[str, Path | str]:
    """File name to where it is installed, or to its text."""
    wanted = {case.name for case in cases}
    found = {}
    for package, modules in MANUAL.items():
        for module, dags in modules.items():
            if wanted & set(dags):
                found[f"{module}.py"] = folder(package) / f"{module}.py"
    for name, package, module, *_ in SPECIAL:
        if name in wanted:
            found[f"{module}.py"] = folder(package) / f"{module}.py"
    for package, names in BESIDE.items():
        found |= {name: folder(package) / name for name in names}
    return found | partitions.files(cases) | {"plugins/examples.py": PLUGINS}


def cases() -> list[Case]:
    made = []
    for modules in MANUAL.values():
        for dags in modules.values():
            for dag in dags:
                history = [["trigger", dag, "golden", {"logical_date": WHEN}], ["run", dag, "golden", "finished"]]
                made.append(Case(dag, [dag], history, runs=["golden"], chance=CHANCE))
    for name, _, _, dags, history in SPECIAL:
        runs = ["golden"] if name == "trigger_controller" else None  # its schedule makes another run
        made.append(Case(name, dags, history, runs=runs, chance=CHANCE))
    return [*made, *partitions.CASES]

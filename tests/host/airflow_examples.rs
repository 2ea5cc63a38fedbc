//! Airflow's own example DAGs, from the installed packages and unchanged, end as they do in Airflow.

use std::path::PathBuf;
use std::process::Command;

use support::{TestHost, prepared};

/// Where a package of the prepared Python lies.
fn installed(package: &str) -> PathBuf {
    let program = format!("import {package}, os; print(os.path.dirname({package}.__file__))");
    let output = Command::new(prepared("MODALFLOW_TEST_PYTHON"))
        .args(["-c", &program])
        .env("AIRFLOW_HOME", std::env::temp_dir())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .last()
            .unwrap(),
    )
}

#[test]
fn airflows_examples_end_as_they_do_in_airflow() {
    let host = TestHost::new();
    let core = installed("airflow.example_dags");
    let standard = installed("airflow.providers.standard.example_dags");
    host.upload_paths(&[
        core.join("tutorial_taskflow_api.py"),
        core.join("example_xcom.py"),
        core.join("example_branch_labels.py"),
        core.join("example_dynamic_task_mapping.py"),
        core.join("example_trigger_target_dag.py"),
        standard.join("example_trigger_controller_dag.py"),
        standard.join("example_bash_operator.py"),
    ]);
    let _serve = host.serve();
    let dags = [
        "tutorial_taskflow_api",
        "example_xcom",
        "example_branch_labels",
        "example_dynamic_task_mapping",
        "example_task_mapping_second_order",
        "example_task_group_mapping",
        "example_bash_operator",
        "example_trigger_controller_dag",
    ];
    let runs = dags.map(|dag| (dag, host.trigger(dag, &["--run-id", "golden"])));
    let mut seen = String::new();
    for (dag, run) in runs {
        let state = host.wait(dag, &run);
        seen += &format!("{dag} {state}\n{}\n", host.tasks(dag, &run));
    }
    insta::assert_snapshot!(seen);
    // The controller made a run of the target, which has ended as well.
    let target: String = host
        .block(
            sqlx::query_scalar(
                "SELECT run_id FROM dag_run WHERE dag_id = 'example_trigger_target_dag'",
            )
            .fetch_one(host.pool()),
        )
        .unwrap();
    assert_eq!(host.wait("example_trigger_target_dag", &target), "success");
}

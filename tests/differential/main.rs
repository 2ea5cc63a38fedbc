//! What real Airflow made of DAGs and clicks, recorded, against what modalflow makes of them now: `differential.py` plays
//! the histories and compares the rows. This only starts it, a suite each.

use std::path::Path;
use std::process::Command;

use support::prepared;

/// Plays one suite on modalflow; its differences from the goldens are the failure.
fn equals_airflow(suite: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential/differential.py");
    let mut python = Command::new(prepared("MODALFLOW_TEST_PYTHON"));
    python
        .arg("-B")
        .arg(script)
        .args(["compare", "--only", suite])
        .env(
            "MODALFLOW_TEST_DATABASE_URL",
            prepared("MODALFLOW_TEST_DATABASE_URL"),
        )
        .env("MODALFLOW_TEST_HOME", prepared("MODALFLOW_TEST_HOME"))
        .env("MODALFLOW_TEST_HOST", prepared("MODALFLOW_TEST_HOST"));
    let output = python.output().expect("Python starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn airflows_examples_leave_the_rows_that_airflow_leaves() {
    equals_airflow("examples");
}

#[test]
fn clicks_have_the_effect_that_they_have_in_airflow() {
    equals_airflow("clicks");
}

#[test]
fn random_dags_leave_the_rows_that_airflow_leaves() {
    equals_airflow("random");
}

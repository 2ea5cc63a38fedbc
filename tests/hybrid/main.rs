//! The Python package for an existing Airflow: the wheel is built, installed beside the Airflow of the tests, and its cases run
//! there; then a real Airflow with ModalExecutor runs DAGs. What the cases are stands in the package's own tests.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod installed;

use installed::{Installed, cases, compat};

#[test]
fn the_wheel_carries_the_host_and_its_cases_pass() {
    let installed = Installed::on(&support::prepared("MODALFLOW_TEST_HYBRID_PYTHON"));
    cases(&installed);
}

#[test]
fn airflow_3_3_runs_its_tasks_on_modal() {
    let installed = Installed::on(&support::prepared("MODALFLOW_TEST_HYBRID_PYTHON"));
    compat(&installed);
}

#[test]
fn airflow_2_11_runs_its_tasks_on_modal() {
    let installed = Installed::on(&support::prepared("MODALFLOW_TEST_AIRFLOW_2_PYTHON"));
    compat(&installed);
}

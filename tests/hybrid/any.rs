//! The package with an Airflow that `tests/hybrid/run` names, or with Modal itself. Not a part of `tests/run`: each needs what
//! that command prepares.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod installed;

use installed::{Installed, cases, compat};

#[test]
fn any_airflow_runs_its_tasks_on_modal() {
    let installed = Installed::on(&support::prepared("MODALFLOW_TEST_ANY_PYTHON"));
    cases(&installed);
    compat(&installed);
}

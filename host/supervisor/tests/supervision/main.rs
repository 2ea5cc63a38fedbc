//! The supervisor with a real Airflow. `MODALFLOW_TEST_PYTHON` names its Python; `tests/run` sets it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod bridge;
mod protocol;
mod support;
mod tasks;
mod worker;

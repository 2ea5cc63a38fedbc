//! The supervisor with a real Airflow. `MODALFLOW_TEST_PYTHON` names its Python; `tests/run` sets it.

mod protocol;
mod support;
mod tasks;
mod worker;

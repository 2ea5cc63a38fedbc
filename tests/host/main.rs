//! The whole house under `serve`: real DAGs in real workers, crashes in between.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod airflow_examples;
mod assets;
mod crashes;
mod deferral;
mod examples;
mod limits;
mod many;
mod official_supervisor;
mod schedules;
mod ticks;
mod xcoms;

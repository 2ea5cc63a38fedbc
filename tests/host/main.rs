//! The whole house under `serve`: real DAGs in real workers, crashes in between.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod airflow_examples;
mod assets;
mod bad_line;
mod callbacks;
mod crashes;
mod deadlines;
mod deferral;
mod examples;
mod executor_config;
mod history;
mod hitl;
mod limits;
mod many;
mod official_supervisor;
mod partitions;
mod platform_faults;
mod schedules;
mod spoilt;
mod stuck;
mod ticks;
mod timetables;
mod unreadable;
mod watchers;
mod xcoms;

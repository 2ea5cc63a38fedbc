//! The scheduler from outside: scripts with transcripts, properties, the truth table, speed, Airflow's examples.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod examples;
mod partitions;
mod properties;
mod recorded;
mod run_properties;
mod scenarios;
mod speed;
mod truth_table;
mod world;

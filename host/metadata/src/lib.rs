//! Postgres in Airflow's own schema. All SQL text of the host lives in this crate; it turns rows into nouns and
//! plans into guarded updates, and decides nothing.
//!
//! Our own tables live in the schema `modalflow`, everything else is Airflow's. Every write of a state is a
//! compare-and-set: its `WHERE` names the state that the decision was made on.

pub mod apply;
pub mod asset_queue;
pub mod backfills;
pub mod callbacks;
pub mod carrier;
pub mod connect;
pub mod dag_files;
pub mod dag_runs;
pub mod dags;
pub mod deadlines;
pub mod deferral;
pub mod dispatch;
pub mod due;
mod error;
pub mod execution;
mod executor_config;
pub mod history;
pub mod hitl;
pub mod import_errors;
pub mod jobs;
pub mod lease;
pub mod listing;
pub mod lost;
pub mod partitions;
pub mod queue;
pub mod rows;
pub mod run_snapshots;
pub mod schema;
pub mod serialized;
pub mod stuck;
pub mod timetables;
pub mod weights;

pub use connect::connect;
pub use error::Error;

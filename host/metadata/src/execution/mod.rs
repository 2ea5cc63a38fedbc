//! What the Execution API asks of Postgres: one function, one question or one fact.
//!
//! Every write of a task instance's state is a compare-and-set that reports the state it found. The hot requests
//! of a running task (start, heartbeat, rendered fields, end) are one statement each. JSON columns travel as
//! text, so that no number of a user is rounded on its way.

pub mod asset_changes;
pub mod asset_events;
pub mod assets;
pub mod clear;
pub mod connections;
pub mod dag_runs;
pub mod dags;
pub mod fail_fast;
pub mod heartbeat;
pub mod hitl;
pub mod partitions;
pub mod rendered;
pub mod start;
pub mod state;
pub mod stores;
pub mod task_instances;
pub mod variables;
pub mod xcoms;

pub use fail_fast::fail_fast;

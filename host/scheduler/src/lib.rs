//! What should happen next: pure functions from a snapshot to a plan. Synchronous, no clock, no I/O, no log.
//!
//! [`runs`] decides about whole runs (which to create, which to start), [`run`] about the task instances of
//! one run, [`queue`] about which of them get a slot, [`lost`] and [`retry`] about tries that ended badly,
//! [`callbacks`] about what is owed to people then,
//! [`deadlines`] about when a run is needed by, [`partitions`] about what an event of an asset's partition queues.
//! [`supported`] names what this scheduler must not be trusted with yet.

pub mod callbacks;
pub mod deadlines;
mod error;
pub mod lost;
mod mapping;
pub mod partitions;
pub mod plan;
mod python_dates;
pub mod queue;
pub mod retry;
pub mod run;
pub mod runs;
pub mod snapshot;
pub mod supported;
mod timetables;
mod weights;

pub use error::Error;

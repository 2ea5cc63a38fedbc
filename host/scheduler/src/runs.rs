//! Decisions about whole runs: which are due, what a new one consists of, which queued ones start.

mod assets;
mod create;
mod custom;
mod due;
mod manual;
mod partition_keys;
mod start;

pub(crate) use assets::is_met;
pub use assets::{AssetReadiness, asset_readiness, asset_triggered, partition_triggered};
pub use create::{MappedLengths, task_instances};
pub(crate) use create::{is_active, new_task_instance};
pub use custom::{CustomDecision, TimeRestriction, custom_timetable, due_custom};
pub use due::{LastRun, due, next_after};
pub use manual::{ManualRun, manual};
pub use start::start_queued;

#[cfg(test)]
pub(crate) use manual::isoformat;

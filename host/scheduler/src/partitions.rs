//! Partitions of assets: which keys an event of an asset queues for the DAGs that listen, and when a queued partition
//! has all that its run waits for. `airflow: partition_mappers, PartitionedAssetTimetable`
//!
//! Mappers and windows of users' own classes are Python code and unknown here.

mod events;
mod mapper;
mod read;
mod rollup;
mod temporal;
mod timetable;
mod window;

#[cfg(test)]
mod tests;

pub use events::{Mapped, PartitionEvent, map_event};
pub use rollup::{PartitionReadiness, partition_readiness};
pub(crate) use timetable::PartitionedAssets;

//! What an event of an asset's partition queues for a DAG that listens.

use chrono::{DateTime, Utc};
use model::SerializedDag;
use serde_json::Value;

use super::PartitionedAssets;
use crate::timetables::Unreadable;

/// The width of the column.
const LONGEST_KEY: usize = 250;

/// An event of an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionEvent<'a> {
    pub asset_name: &'a str,
    pub asset_uri: &'a str,
    pub partition_key: &'a str,
    /// Of the run that made the event, if the key is that run's.
    pub partition_date: Option<DateTime<Utc>>,
    /// `[scheduler] partition_mapper_max_downstream_keys`
    pub max_downstream_keys: usize,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapped {
    /// Partitions of the DAG that have received the event's key.
    Keys {
        keys: Vec<String>,
        partition_date: Option<DateTime<Utc>>,
        fingerprint: Value,
    },
    /// Nothing, and why: an entry of the audit log.
    Refused { event: &'static str, extra: String },
}

/// `airflow: AssetManager._queue_partitioned_dags`
#[must_use]
pub fn map_event(dag: &SerializedDag, event: &PartitionEvent<'_>) -> Mapped {
    let place = format!(
        "(name='{}', uri='{}') in target Dag '{}'",
        event.asset_name, event.asset_uri, dag.dag_id
    );
    let key = event.partition_key;
    let unmapped = |problem: String| Mapped::Refused {
        event: "failed to map partition_key",
        extra: format!(
            "Could not map partition_key '{key}' for asset {place}. This likely indicates that the partition mapper \
             in the target Dag is misconfigured or does not support this partition key.\n{problem}"
        ),
    };
    let assets = match PartitionedAssets::of(&dag.timetable) {
        Ok(Some(assets)) => assets,
        Ok(None) => return unmapped(format!("{} has no mappers", dag.timetable.class)),
        Err(Unreadable::Class(class)) => {
            return unmapped(format!("modalflow does not run the class {class}"));
        }
        Err(Unreadable::Data { class, problem }) => {
            return unmapped(format!("{class}: {problem}"));
        }
        Err(Unreadable::Cron { problem, .. }) => return unmapped(problem),
    };
    let mapper = assets.mapper(event.asset_name, event.asset_uri);
    let keys = match mapper.to_downstream(key) {
        Ok(keys) => keys.into_vec(),
        Err(raised) => return unmapped(raised.to_string()),
    };
    let (most, source) = match mapper.max_downstream_keys {
        Some(most) => (
            usize::try_from(most).unwrap_or(usize::MAX),
            format!("max_downstream_keys={most}"),
        ),
        None => (
            event.max_downstream_keys,
            format!(
                "[scheduler] partition_mapper_max_downstream_keys={}",
                event.max_downstream_keys
            ),
        ),
    };
    if keys.len() > most {
        return Mapped::Refused {
            event: "partition fan-out exceeded",
            extra: format!(
                "Partition mapper for asset {place} produced {} downstream keys from partition_key='{key}', \
                 exceeding {source}. No Dag runs were queued for this event.",
                keys.len()
            ),
        };
    }
    // In Airflow the database refuses the row, and the task fails with it.
    if let Some(long) = keys.iter().find(|key| key.chars().count() > LONGEST_KEY) {
        return unmapped(format!(
            "the key '{long}' is longer than {LONGEST_KEY} characters"
        ));
    }
    Mapped::Keys {
        keys,
        partition_date: event
            .partition_date
            .filter(|_| mapper.carries_partition_date()),
        fingerprint: assets.fingerprint(),
    }
}

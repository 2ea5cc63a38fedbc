//! The partition that somebody asks a run for.

use chrono::{DateTime, Utc};
use model::SerializedDag;

use super::due::unreadable_timetable;
use crate::Error;
use crate::partitions::PartitionedAssets;
use crate::python_dates::repr;
use crate::timetables::{Timetable, Unreadable};

/// The width of the column.
const LONGEST_KEY: usize = 250;

/// The date of the partition, if its key tells one; an error for a DAG without partitions and for what is no key of it.
/// `airflow: SerializedDAG.validate_partition_key, Timetable.resolve_partition_date`
pub(super) fn partition_date(
    dag: &SerializedDag,
    key: Option<&str>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let Some(key) = key else {
        return Ok(None);
    };
    let dag_id = || dag.dag_id.clone();
    let wrong = |problem: String| Error::PartitionKey {
        dag_id: dag_id(),
        problem,
    };
    let timetable = match Timetable::read(&dag.timetable) {
        Ok(timetable) => timetable,
        Err(Unreadable::Class(class)) => {
            return Err(wrong(format!(
                "its timetable {class} is a class of the user's own, whose partitions modalflow does not know"
            )));
        }
        Err(unreadable) => return Err(unreadable_timetable(dag, unreadable)),
    };
    let accepts_keys = matches!(
        timetable,
        Timetable::CronPartition(_) | Timetable::PartitionedAsset | Timetable::PartitionedAtRuntime
    );
    if !accepts_keys {
        return Err(Error::NotPartitioned { dag_id: dag_id() });
    }
    if key.trim().is_empty() {
        return Err(wrong(
            "partition_key must not be empty or whitespace-only.".to_owned(),
        ));
    }
    let length = key.chars().count();
    if length > LONGEST_KEY {
        return Err(wrong(format!(
            "partition_key must be at most {LONGEST_KEY} characters; got {length}."
        )));
    }
    match timetable {
        Timetable::CronPartition(cron) => cron.decode(key).map(Some).map_err(|raised| {
            wrong(format!(
                "Partition key {} does not match the timetable's key_format {}: {}",
                repr(key),
                repr(cron.key_format()),
                raised.text()
            ))
        }),
        Timetable::PartitionedAsset => match PartitionedAssets::of(&dag.timetable) {
            Ok(Some(assets)) => assets
                .decode(key)
                .map_err(|raised| wrong(raised.text().to_owned())),
            Ok(None) => Ok(None),
            Err(unreadable) => Err(unreadable_timetable(dag, unreadable)),
        },
        // The key is all that is known.
        _ => Ok(None),
    }
}

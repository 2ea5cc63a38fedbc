//! New runs of partitions that have received all that they wait for.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use metadata::dag_runs::{Inserted, Origin};
use metadata::serialized::StoredDag;
use metadata::{dag_runs, due, partitions};
use scheduler::partitions::{PartitionReadiness, partition_readiness};
use scheduler::runs::partition_triggered;
use scheduler::snapshot::OpenPartition;
use sqlx::PgConnection;

use super::create::suffix;
use super::{Error, Report, stored};
use crate::house::House;

/// Makes them, and forgets partitions of mappers that are no more; answers how many moved on.
pub(super) async fn runs(
    house: &House,
    db: &mut PgConnection,
    job_id: i32,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let open = partitions::open(db).await?;
    if open.is_empty() {
        return Ok(0);
    }
    let mut dag_ids: Vec<String> = open.iter().map(|open| open.dag_id.clone()).collect();
    dag_ids.sort();
    dag_ids.dedup();
    let dags = stored::latest(house, db, &dag_ids, report, now).await?;
    let moving: Vec<i32> = decided(&dags, &open)
        .into_iter()
        .filter(|(_, _, readiness)| *readiness != PartitionReadiness::Waiting)
        .map(|(_, partition, _)| partition.id)
        .collect();
    if moving.is_empty() {
        return Ok(0);
    }
    let locked = partitions::lock(db, &moving).await?;
    let mut moved = 0;
    let mut stale = Vec::new();
    let mut made_for = Vec::new();
    for (stored, partition, readiness) in decided(&dags, &locked) {
        let partition_date = match readiness {
            PartitionReadiness::Ready { partition_date } => partition_date,
            // Looked at again: events that are being added just now are not among them.
            PartitionReadiness::Waiting => continue,
            PartitionReadiness::Stale => {
                stale.push(partition.id);
                continue;
            }
        };
        let run = partition_triggered(&stored.dag, partition, partition_date, &suffix(), now);
        let run = match run {
            Ok(run) => run,
            Err(error) => {
                report.problem(&error);
                continue;
            }
        };
        let origin = Origin {
            dag_version_id: stored.dag_version_id,
            creating_job_id: Some(job_id),
        };
        if let Inserted::New(id) = dag_runs::insert(db, &run, &origin, now).await? {
            partitions::consume(db, partition.id, id, now).await?;
            report.runs_created += 1;
            moved += 1;
            made_for.push(partition.dag_id.clone());
        }
    }
    if !stale.is_empty() {
        let forgotten = partitions::forget(db, &stale).await?;
        tracing::info!(
            partitions = stale.len(),
            events = forgotten,
            "forgot partitions that were queued through other mappers than their DAG has now"
        );
        moved += u64::try_from(stale.len()).unwrap_or(0);
    }
    due::set_exceeds_max_active_runs(db, &made_for).await?;
    Ok(moved)
}

/// What to do about each, the oldest first; those of a DAG that can't be read now are left out.
fn decided<'a>(
    dags: &'a HashMap<String, StoredDag>,
    open: &'a [OpenPartition],
) -> Vec<(&'a StoredDag, &'a OpenPartition, PartitionReadiness)> {
    let mut by_dag: HashMap<&str, Vec<&OpenPartition>> = HashMap::new();
    for partition in open {
        by_dag.entry(&partition.dag_id).or_default().push(partition);
    }
    let mut readiness: HashMap<i32, (&StoredDag, PartitionReadiness)> = HashMap::new();
    for (dag_id, partitions) in by_dag {
        if let Some(stored) = dags.get(dag_id) {
            let decided = partition_readiness(&stored.dag, &partitions);
            let ids = partitions.iter().map(|partition| partition.id);
            readiness.extend(ids.zip(decided.into_iter().map(|decided| (stored, decided))));
        }
    }
    open.iter()
        .filter_map(|partition| {
            let (stored, readiness) = readiness.remove(&partition.id)?;
            Some((stored, partition, readiness))
        })
        .collect()
}

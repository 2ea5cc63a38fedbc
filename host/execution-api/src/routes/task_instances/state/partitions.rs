//! What a success means for DAGs of partitions that wait for its assets: their mappers say which partitions its events
//! belong to. `airflow: AssetManager._queue_partitioned_dags`

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use metadata::execution::asset_changes::Heard;
use metadata::execution::partitions::{self, Received};
use model::TaskInstanceKey;
use scheduler::partitions::{Mapped, PartitionEvent, map_event};
use sqlx::PgConnection;

use crate::ApiState;
use crate::problem::Problem;

/// Queues what was heard, within the transaction that makes the task successful.
pub(super) async fn queue(
    api: &ApiState,
    db: &mut PgConnection,
    source: &TaskInstanceKey,
    heard: &[Heard],
    now: DateTime<Utc>,
) -> Result<(), Problem> {
    if heard.is_empty() {
        return Ok(());
    }
    let dag_ids: BTreeSet<String> = heard
        .iter()
        .flat_map(|event| event.dag_ids.iter().cloned())
        .collect();
    let dag_ids: Vec<String> = dag_ids.into_iter().collect();
    let dags = api.dags.latest(db, &dag_ids).await?;
    let mut mapped = Vec::new();
    for event in heard {
        let Some(key) = event.partition_key.as_deref().filter(|key| !key.is_empty()) else {
            let extra = without_key(source, event);
            partitions::refuse(db, source, "missing partition key", &extra, now).await?;
            continue;
        };
        for dag_id in &event.dag_ids {
            let what = PartitionEvent {
                asset_name: &event.asset_name,
                asset_uri: &event.asset_uri,
                partition_key: key,
                partition_date: event.partition_date,
                max_downstream_keys: api.limits.max_downstream_keys,
            };
            let answer = match dags.get(dag_id) {
                Some(Ok(stored)) => map_event(&stored.dag, &what),
                // Another version is being stored, or cannot be read: the task is not to fail for that.
                Some(Err(error)) => unread(dag_id, &error.to_string()),
                None => unread(dag_id, "it has not been serialized yet"),
            };
            mapped.push((event, dag_id, answer));
        }
    }
    let assets: Vec<i32> = heard.iter().map(|event| event.asset_id).collect();
    partitions::lock(db, &assets, &dag_ids).await?;
    for (event, dag_id, answer) in mapped {
        match answer {
            Mapped::Keys {
                keys,
                partition_date,
                fingerprint,
            } => {
                let received = Received {
                    event,
                    dag_id,
                    keys: &keys,
                    partition_date,
                    fingerprint: &fingerprint,
                };
                partitions::receive(db, &received, now).await?;
            }
            Mapped::Refused { event, extra } => {
                tracing::warn!(dag_id, event, extra, "an asset event queues no partition");
                partitions::refuse(db, source, event, &extra, now).await?;
            }
        }
    }
    Ok(())
}

fn unread(dag_id: &str, problem: &str) -> Mapped {
    Mapped::Refused {
        event: "failed to map partition_key",
        extra: format!("Could not read the target Dag '{dag_id}': {problem}"),
    }
}

fn without_key(source: &TaskInstanceKey, event: &Heard) -> String {
    let dags: Vec<String> = event.dag_ids.iter().map(|dag| format!("'{dag}'")).collect();
    format!(
        "Listening Dags are partition-aware but the run has no partition key (listening_dags=[{}], asset_id={}, \
         run_id={}, dag_id={}, task_id={})",
        dags.join(", "),
        event.asset_id,
        source.run_id,
        source.dag_id,
        source.task_id
    )
}

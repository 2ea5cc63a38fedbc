//! Events of partitions, written where DAGs of partitions wait for them.
//! `airflow: AssetManager._queue_partitioned_dags, _get_or_create_apdr`

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::TaskInstanceKey;
use serde_json::Value;
use sqlx::PgConnection;

use crate::Error;
use crate::execution::asset_changes::Heard;

/// What an event queues for one DAG.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    pub event: &'a Heard,
    pub dag_id: &'a str,
    pub keys: &'a [String],
    pub partition_date: Option<DateTime<Utc>>,
    pub fingerprint: &'a Value,
}

/// Holds up everybody else who queues partitions of these assets or DAGs, until the transaction ends: else two events
/// that come at once would make two partitions of one key, of which none gets complete.
///
/// # Errors
/// The database's errors.
pub async fn lock(
    db: &mut PgConnection,
    asset_ids: &[i32],
    dag_ids: &[String],
) -> Result<(), Error> {
    // airflow: _lock_asset_model. In one order, and all of them before the DAGs', so that nobody waits in a circle.
    sqlx::query("SELECT id FROM asset WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .bind(asset_ids)
        .execute(&mut *db)
        .await?;
    // In Airflow events of two assets for one key may still meet; ours do not.
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtext('modalflow.partitions'), key) \
           FROM (SELECT DISTINCT hashtext(dag_id) AS key FROM unnest($1::text[]) AS d (dag_id) ORDER BY 1) AS keys",
    )
    .bind(dag_ids)
    .execute(db)
    .await?;
    Ok(())
}

/// Adds the event to the open partitions of its keys, which are made where there are none.
///
/// # Errors
/// The database's errors.
pub async fn receive(
    db: &mut PgConnection,
    received: &Received<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // Waits for a tick that closes one of them just now; then it is none of them, and the event opens the next.
    let open: Vec<(String, i32)> = sqlx::query_as(
        "SELECT partition_key, id FROM asset_partition_dag_run \
          WHERE target_dag_id = $1 AND partition_key = ANY($2) AND created_dag_run_id IS NULL \
          ORDER BY id \
            FOR NO KEY UPDATE",
    )
    .bind(received.dag_id)
    .bind(received.keys)
    .fetch_all(&mut *db)
    .await?;
    let mut partitions: HashMap<String, i32> = open.into_iter().collect();
    let existing: Vec<i32> = partitions.values().copied().collect();
    if let (Some(date), false) = (received.partition_date, existing.is_empty()) {
        // Events that disagree about the date leave none.
        sqlx::query(
            "UPDATE asset_partition_dag_run \
                SET partition_date = CASE WHEN partition_date IS NULL THEN $2::timestamptz END, updated_at = $3 \
              WHERE id = ANY($1) AND partition_date IS DISTINCT FROM $2::timestamptz",
        )
        .bind(&existing)
        .bind(date)
        .bind(now)
        .execute(&mut *db)
        .await?;
    }
    let mut missing: Vec<&String> = Vec::new();
    for key in received.keys {
        if !partitions.contains_key(key) && !missing.contains(&key) {
            missing.push(key);
        }
    }
    if !missing.is_empty() {
        let made: Vec<(String, i32)> = sqlx::query_as(
            "INSERT INTO asset_partition_dag_run (target_dag_id, partition_key, partition_date, \
                    rollup_fingerprint, created_at, updated_at) \
             SELECT $1, key, $3, $4, $5, $5 FROM unnest($2::text[]) WITH ORDINALITY AS wanted (key, n) ORDER BY n \
             RETURNING partition_key, id",
        )
        .bind(received.dag_id)
        .bind(&missing)
        .bind(received.partition_date)
        .bind(received.fingerprint)
        .bind(now)
        .fetch_all(&mut *db)
        .await?;
        partitions.extend(made);
    }
    let ids: Vec<i32> = received
        .keys
        .iter()
        .filter_map(|key| partitions.get(key).copied())
        .collect();
    sqlx::query(
        "INSERT INTO partitioned_asset_key_log (asset_id, asset_event_id, asset_partition_dag_run_id, \
                source_partition_key, target_dag_id, target_partition_key, created_at) \
         SELECT $1, $2, wanted.id, $4, $5, wanted.key, $7 \
           FROM unnest($3::int[], $6::text[]) WITH ORDINALITY AS wanted (id, key, n) ORDER BY n",
    )
    .bind(received.event.asset_id)
    .bind(received.event.event_id)
    .bind(&ids)
    .bind(&received.event.partition_key)
    .bind(received.dag_id)
    .bind(received.keys)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// Says in the audit log why an event queued nothing.
///
/// # Errors
/// The database's errors.
pub async fn refuse(
    db: &mut PgConnection,
    source: &TaskInstanceKey,
    event: &str,
    extra: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, try_number, logical_date, event, extra) \
         SELECT $1, t.dag_id, t.task_id, t.run_id, t.map_index, t.try_number, r.logical_date, $6, $7 \
           FROM task_instance t JOIN dag_run r ON r.dag_id = t.dag_id AND r.run_id = t.run_id \
          WHERE t.dag_id = $2 AND t.task_id = $3 AND t.run_id = $4 AND t.map_index = $5",
    )
    .bind(now)
    .bind(&source.dag_id)
    .bind(&source.task_id)
    .bind(&source.run_id)
    .bind(source.map_index)
    .bind(event)
    .bind(extra)
    .execute(db)
    .await?;
    Ok(())
}

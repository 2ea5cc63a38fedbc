//! Partitions that events have queued for DAGs (`asset_partition_dag_run`), and the runs that consume them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use scheduler::snapshot::{OpenPartition, QueuedAsset};
use serde_json::Value;
use sqlx::PgConnection;

use crate::Error;

/// So many partitions are looked at in one round; the oldest first, as in Airflow.
/// `airflow: SchedulerJobRunner._max_partition_dag_runs_per_loop`
const BATCH: i64 = 500;

/// Partitions without a run.
///
/// # Errors
/// The database's errors.
pub async fn open(db: &mut PgConnection) -> Result<Vec<OpenPartition>, Error> {
    let rows = sqlx::query_as(
        "SELECT p.id, p.target_dag_id, p.partition_key, p.partition_date, p.rollup_fingerprint \
           FROM asset_partition_dag_run p JOIN dag d ON d.dag_id = p.target_dag_id \
          WHERE p.created_dag_run_id IS NULL AND NOT d.is_stale \
          ORDER BY p.created_at, p.id \
          LIMIT $1",
    )
    .bind(BATCH)
    .fetch_all(&mut *db)
    .await?;
    with_received(db, rows).await
}

/// Those of these that still have none, with their rows locked; what another session has locked is left out.
///
/// # Errors
/// The database's errors.
pub async fn lock(db: &mut PgConnection, ids: &[i32]) -> Result<Vec<OpenPartition>, Error> {
    // Airflow's own lock: who holds it is making the run already, or is adding an event just now.
    let rows = sqlx::query_as(
        "SELECT id, target_dag_id, partition_key, partition_date, rollup_fingerprint \
           FROM asset_partition_dag_run \
          WHERE id = ANY($1) AND created_dag_run_id IS NULL \
          ORDER BY created_at, id \
            FOR UPDATE SKIP LOCKED",
    )
    .bind(ids)
    .fetch_all(&mut *db)
    .await?;
    with_received(db, rows).await
}

type Row = (i32, String, String, Option<DateTime<Utc>>, Option<Value>);

async fn with_received(db: &mut PgConnection, rows: Vec<Row>) -> Result<Vec<OpenPartition>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i32> = rows.iter().map(|(id, ..)| *id).collect();
    // airflow: what an asset without a DAG has sent counts again when it is active again.
    let received: Vec<(i32, i32, String, String, String, Vec<String>)> = sqlx::query_as(
        "SELECT DISTINCT l.asset_partition_dag_run_id, a.id, l.source_partition_key, a.name, a.uri, \
                ARRAY(SELECT s.name FROM asset_alias_asset x JOIN asset_alias s ON s.id = x.alias_id \
                       WHERE x.asset_id = a.id)::text[] AS aliases \
           FROM partitioned_asset_key_log l \
           JOIN asset a ON a.id = l.asset_id \
           JOIN asset_active active ON active.name = a.name AND active.uri = a.uri \
          WHERE l.asset_partition_dag_run_id = ANY($1) \
          ORDER BY 1, 2, 3",
    )
    .bind(&ids)
    .fetch_all(db)
    .await?;
    let mut keys: HashMap<i32, Vec<(QueuedAsset, String)>> = HashMap::new();
    for (id, asset_id, source_key, name, uri, aliases) in received {
        let asset = QueuedAsset {
            asset_id,
            name,
            uri,
            is_active: true,
            aliases,
            created_at: DateTime::UNIX_EPOCH,
        };
        keys.entry(id).or_default().push((asset, source_key));
    }
    Ok(rows
        .into_iter()
        .map(
            |(id, dag_id, partition_key, partition_date, fingerprint)| OpenPartition {
                id,
                dag_id,
                partition_key,
                partition_date,
                fingerprint,
                received: keys.remove(&id).unwrap_or_default(),
            },
        )
        .collect())
}

/// Gives the run the events of its partition, and closes the partition.
///
/// # Errors
/// The database's errors.
pub async fn consume(
    db: &mut PgConnection,
    id: i32,
    dag_run_id: i32,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let closed = sqlx::query(
        "UPDATE asset_partition_dag_run SET created_dag_run_id = $2, updated_at = $3 \
          WHERE id = $1 AND created_dag_run_id IS NULL",
    )
    .bind(id)
    .bind(dag_run_id)
    .bind(now)
    .execute(&mut *db)
    .await?;
    if closed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO dagrun_asset_event (dag_run_id, event_id) \
         SELECT DISTINCT $2::int, e.id \
           FROM partitioned_asset_key_log l JOIN asset_event e ON e.id = l.asset_event_id \
          WHERE l.asset_partition_dag_run_id = $1 \
          ORDER BY e.id \
         ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(dag_run_id)
    .execute(db)
    .await?;
    Ok(true)
}

/// Removes partitions that were queued through mappers that are no more, with what they received.
///
/// # Errors
/// The database's errors.
pub async fn forget(db: &mut PgConnection, ids: &[i32]) -> Result<u64, Error> {
    let done = sqlx::query(
        "WITH stale AS ( \
           DELETE FROM asset_partition_dag_run \
            WHERE id = ANY($1) AND created_dag_run_id IS NULL \
           RETURNING id \
         ) \
         DELETE FROM partitioned_asset_key_log l USING stale \
          WHERE l.asset_partition_dag_run_id = stale.id",
    )
    .bind(ids)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

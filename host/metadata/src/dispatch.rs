//! The executor's intents: what is to be started, what was, and what became of it.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use crate::{Error, carrier, executor_config};

/// A task instance to be started, with everything its workload needs.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The idempotency key of the spawn.
    pub dispatch_id: Uuid,
    pub ti_id: Uuid,
    /// Spawns of this intent that failed before.
    pub failures: i32,
    /// What the task asks of its container; null: nothing.
    pub executor_config: serde_json::Value,
    /// Airflow's `ExecuteTask`, without its token.
    pub workload: serde_json::Value,
}

/// Intents whose call has not been acknowledged and whose backoff is over, oldest first.
///
/// # Errors
/// The database's errors.
pub async fn unsent(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<Intent>, Error> {
    let rows = sqlx::query(
        "SELECT x.dispatch_id, x.failures, ti.id, ti.task_id, ti.dag_id, ti.run_id, ti.try_number, \
                ti.map_index, ti.dag_version_id, ti.pool_slots, coalesce(ti.queue, 'default') AS queue, \
                coalesce(ti.priority_weight, 1) AS priority_weight, ti.context_carrier, \
                ti.executor_config, d.relative_fileloc, d.bundle_name, dr.bundle_version \
           FROM modalflow.dispatch x \
           JOIN task_instance ti ON ti.id = x.ti_id AND ti.state = 'queued' \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
           JOIN dag d ON d.dag_id = ti.dag_id \
          WHERE x.call_id IS NULL AND (x.not_before IS NULL OR x.not_before <= $1) \
          ORDER BY x.created_at, x.dispatch_id",
    )
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let ti_id: Uuid = row.try_get("id")?;
            let map_index: i32 = row.try_get("map_index")?;
            let (dag_id, run_id, task_id): (String, String, String) = (
                row.try_get("dag_id")?,
                row.try_get("run_id")?,
                row.try_get("task_id")?,
            );
            let try_number: i32 = row.try_get("try_number")?;
            let context: Option<serde_json::Value> = row.try_get("context_carrier")?;
            let workload = json!({
                "type": "ExecuteTask",
                "dag_rel_path": row.try_get::<Option<String>, _>("relative_fileloc")?,
                "bundle_info": {
                    "name": row.try_get::<String, _>("bundle_name")?,
                    "version": row.try_get::<Option<String>, _>("bundle_version")?,
                },
                "log_path": log_path(&dag_id, &run_id, &task_id, map_index, try_number),
                "ti": {
                    "id": ti_id,
                    "task_id": task_id,
                    "dag_id": dag_id,
                    "run_id": run_id,
                    "try_number": try_number,
                    "dag_version_id": row.try_get::<Option<Uuid>, _>("dag_version_id")?,
                    "map_index": map_index,
                    "hostname": "",
                    "context_carrier": context.as_ref().map(carrier::unwrap),
                    "queue": row.try_get::<String, _>("queue")?,
                    "pool_slots": row.try_get::<i32, _>("pool_slots")?,
                    "priority_weight": row.try_get::<i32, _>("priority_weight")?,
                },
                "sentry_integration": "",
            });
            Ok(Intent {
                dispatch_id: row.try_get("dispatch_id")?,
                ti_id,
                failures: row.try_get("failures")?,
                executor_config: executor_config::unpickled(row.try_get("executor_config")?),
                workload,
            })
        })
        .collect()
}

/// Airflow's default `log_filename_template`, which is what the UI reads. Ids in it were checked when the DAG was
/// taken in and when the run was made.
fn log_path(dag_id: &str, run_id: &str, task_id: &str, map_index: i32, try_number: i32) -> String {
    let mapped = if map_index >= 0 {
        format!("map_index={map_index}/")
    } else {
        String::new()
    };
    format!("dag_id={dag_id}/run_id={run_id}/task_id={task_id}/{mapped}attempt={try_number}.log")
}

/// Stores the calls that were acknowledged, in our row and in `external_executor_id`.
///
/// # Errors
/// The database's errors.
pub async fn sent(
    pool: &PgPool,
    calls: &[(Uuid, String)],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if calls.is_empty() {
        return Ok(());
    }
    let dispatch_ids: Vec<Uuid> = calls.iter().map(|(id, _)| *id).collect();
    let call_ids: Vec<&str> = calls.iter().map(|(_, call)| call.as_str()).collect();
    // The task instance may be running already, or its try over: its id then no longer matches.
    sqlx::query(
        "WITH sent AS ( \
             UPDATE modalflow.dispatch x SET call_id = n.call_id, spawned_at = $3 \
               FROM unnest($1::uuid[], $2::text[]) AS n (dispatch_id, call_id) \
              WHERE x.dispatch_id = n.dispatch_id AND x.call_id IS NULL \
             RETURNING x.ti_id, x.call_id) \
         UPDATE task_instance ti SET external_executor_id = sent.call_id \
           FROM sent WHERE ti.id = sent.ti_id",
    )
    .bind(&dispatch_ids)
    .bind(&call_ids)
    .bind(now)
    .execute(pool)
    .await?;
    Ok(())
}

/// A spawn failed for a reason that passes: it is tried again after `not_before`, and no try is used up.
///
/// # Errors
/// The database's errors.
pub async fn postpone(
    pool: &PgPool,
    dispatch_id: Uuid,
    not_before: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE modalflow.dispatch SET failures = failures + 1, not_before = $2 \
          WHERE dispatch_id = $1 AND call_id IS NULL",
    )
    .bind(dispatch_id)
    .bind(not_before)
    .execute(pool)
    .await?;
    Ok(())
}

/// A call whose end we have not handled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCall {
    pub dispatch_id: Uuid,
    pub call_id: String,
}

/// All calls that were sent and whose end was not handled yet.
///
/// # Errors
/// The database's errors.
pub async fn open_calls(db: &mut PgConnection) -> Result<Vec<OpenCall>, Error> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT dispatch_id, call_id FROM modalflow.dispatch \
          WHERE call_id IS NOT NULL ORDER BY spawned_at",
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(dispatch_id, call_id)| OpenCall {
            dispatch_id,
            call_id,
        })
        .collect())
}

/// Whether a call, of a task or of a callback, is open or to be sent before `until`.
///
/// # Errors
/// The database's errors.
pub async fn is_under_way(pool: &PgPool, until: DateTime<Utc>) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM modalflow.dispatch \
                         WHERE call_id IS NOT NULL OR not_before IS NULL OR not_before <= $1) \
             OR EXISTS (SELECT FROM modalflow.callback_call \
                         WHERE call_id IS NOT NULL OR not_before <= $1)",
    )
    .bind(until)
    .fetch_one(pool)
    .await?)
}

/// Calls that still run although their try is over: the task instance was cleared, marked or deleted more than
/// `grace` ago and the worker has not left by itself.
///
/// # Errors
/// The database's errors.
pub async fn superseded_calls(
    db: &mut PgConnection,
    before: DateTime<Utc>,
) -> Result<Vec<OpenCall>, Error> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT x.dispatch_id, x.call_id \
           FROM modalflow.dispatch x LEFT JOIN task_instance ti ON ti.id = x.ti_id \
          WHERE x.call_id IS NOT NULL AND x.spawned_at < $1 \
            AND (ti.id IS NULL \
                 OR ti.state IN ('success', 'failed', 'skipped', 'removed', 'upstream_failed') \
                    AND ti.end_date < $1)",
    )
    .bind(before)
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(dispatch_id, call_id)| OpenCall {
            dispatch_id,
            call_id,
        })
        .collect())
}

/// Forgets intents whose fate is settled, and those whose task instance left the state queued before they were
/// sent (cleared, marked, deleted).
///
/// # Errors
/// The database's errors.
pub async fn forget(db: &mut PgConnection, dispatch_ids: &[Uuid]) -> Result<(), Error> {
    sqlx::query("DELETE FROM modalflow.dispatch WHERE dispatch_id = ANY($1)")
        .bind(dispatch_ids)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes unsent intents that nobody waits for any more.
///
/// # Errors
/// The database's errors.
pub async fn forget_withdrawn(db: &mut PgConnection) -> Result<u64, Error> {
    let done = sqlx::query(
        "DELETE FROM modalflow.dispatch x WHERE x.call_id IS NULL \
            AND NOT EXISTS (SELECT FROM task_instance ti WHERE ti.id = x.ti_id AND ti.state = 'queued')",
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

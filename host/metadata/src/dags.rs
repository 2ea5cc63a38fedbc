//! The `dag` table as commands use it: which DAGs there are, pausing, when the next thing is due.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

use crate::Error;

/// A DAG as `dags list` shows it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct DagRow {
    pub dag_id: String,
    /// Path below the DAG folder.
    pub file: Option<String>,
    pub schedule: Option<String>,
    pub is_paused: bool,
    /// Its file is gone, or has an import error.
    pub is_stale: bool,
    pub has_import_errors: bool,
    pub next_dagrun: Option<DateTime<Utc>>,
    pub last_parsed_time: Option<DateTime<Utc>>,
}

/// All DAGs by name; those whose file is gone only with `with_stale`.
///
/// # Errors
/// The database's errors.
pub async fn list(pool: &PgPool, with_stale: bool) -> Result<Vec<DagRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT dag_id, relative_fileloc AS file, timetable_summary AS schedule, is_paused, is_stale, \
                coalesce(has_import_errors, false) AS has_import_errors, next_dagrun, last_parsed_time \
           FROM dag WHERE $1 OR NOT is_stale OR coalesce(has_import_errors, false) ORDER BY dag_id",
    )
    .bind(with_stale)
    .fetch_all(pool)
    .await?)
}

/// One DAG, stale or not.
///
/// # Errors
/// The database's errors.
pub async fn find(pool: &PgPool, dag_id: &str) -> Result<Option<DagRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT dag_id, relative_fileloc AS file, timetable_summary AS schedule, is_paused, is_stale, \
                coalesce(has_import_errors, false) AS has_import_errors, next_dagrun, last_parsed_time \
           FROM dag WHERE dag_id = $1",
    )
    .bind(dag_id)
    .fetch_optional(pool)
    .await?)
}

/// A file that could not be taken in: path below the DAG folder, and why.
///
/// # Errors
/// The database's errors.
pub async fn import_errors(pool: &PgPool) -> Result<Vec<(String, String)>, Error> {
    Ok(sqlx::query_as(
        "SELECT coalesce(filename, ''), coalesce(stacktrace, '') FROM import_error ORDER BY filename",
    )
    .fetch_all(pool)
    .await?)
}

/// Sets `is_paused`; `None` when there is no such DAG, else whether it changed.
///
/// # Errors
/// The database's errors.
pub async fn set_paused(
    pool: &PgPool,
    dag_id: &str,
    paused: bool,
    now: DateTime<Utc>,
) -> Result<Option<bool>, Error> {
    let mut tx = pool.begin().await?;
    let before: Option<bool> =
        sqlx::query_scalar("SELECT is_paused FROM dag WHERE dag_id = $1 FOR NO KEY UPDATE")
            .bind(dag_id)
            .fetch_optional(&mut *tx)
            .await?;
    let Some(before) = before else {
        return Ok(None);
    };
    if before != paused {
        sqlx::query("UPDATE dag SET is_paused = $2 WHERE dag_id = $1")
            .bind(dag_id)
            .bind(paused)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO log (dttm, dag_id, event, owner) VALUES ($2, $1, $3, 'modalflow')",
        )
        .bind(dag_id)
        .bind(now)
        .bind(if paused { "paused" } else { "unpaused" })
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(Some(before != paused))
}

/// Asks whichever host serves this database for a tick.
///
/// # Errors
/// The database's errors.
pub async fn ask_for_tick(pool: &PgPool) -> Result<(), Error> {
    sqlx::query("SELECT pg_notify('modalflow_wake', '')")
        .execute(pool)
        .await?;
    Ok(())
}

/// When the next thing is due that no event announces: a run to create or to start, a retry, a poke, a timeout, a
/// postponed spawn. `None`: nothing is.
///
/// # Errors
/// The database's errors.
pub async fn next_wake(db: &mut PgConnection) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT min(at) FROM ( \
             SELECT min(next_dagrun_create_after) AS at FROM dag \
              WHERE NOT is_paused AND NOT is_stale AND NOT coalesce(has_import_errors, false) \
                AND NOT exceeds_max_non_backfill \
             UNION ALL \
             SELECT min(dr.run_after) FROM dag_run dr JOIN dag d ON d.dag_id = dr.dag_id \
              WHERE dr.state = 'queued' AND NOT d.is_paused AND dr.run_after > now() \
             UNION ALL \
             SELECT min(w.wake_at) FROM modalflow.run_wake w JOIN dag_run dr ON dr.id = w.dag_run_id \
               JOIN dag d ON d.dag_id = dr.dag_id \
              WHERE dr.state = 'running' AND NOT d.is_paused \
             UNION ALL \
             SELECT min(not_before) FROM modalflow.dispatch WHERE call_id IS NULL \
             UNION ALL \
             SELECT min(not_before) FROM modalflow.callback_call WHERE call_id IS NULL AND not_before > now() \
             UNION ALL \
             SELECT min(trigger_timeout) FROM task_instance WHERE state IN ('deferred', 'awaiting_input') \
             UNION ALL \
             SELECT min(queued_dttm) + interval '600 s' FROM task_instance WHERE state = 'queued' \
             UNION ALL \
             SELECT min(deadline_time) FROM deadline WHERE NOT missed AND dagrun_id IS NOT NULL \
             UNION ALL \
             SELECT min(t.not_before) FROM modalflow.timetable t JOIN dag d ON d.dag_id = t.dag_id \
              WHERE t.asked_at IS NOT NULL AND t.not_before > now() AND NOT d.is_stale \
             UNION ALL \
             SELECT min(last_heartbeat_at) + interval '300 s' FROM task_instance \
              WHERE state IN ('running', 'restarting')) AS wishes",
    )
    .fetch_one(db)
    .await?)
}

//! Clearing a whole run, so that it runs again. `airflow: taskinstance.clear_task_instances`

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Error, carrier, history};

/// The retries of a task, from its DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    pub task_id: String,
    pub retries: i32,
}

/// Clears all task instances of a run: each try is archived and gets a new id; running ones become restarting, so that
/// their workers learn of it; others lose their state and get their retries back. A finished run is queued again.
/// Answers `false` when there is no such run.
///
/// # Errors
/// The database's errors.
pub async fn clear_run(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
    retries: &[Retries],
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    // Run before task instances, as Airflow's scheduler locks them.
    let run: Option<i32> = sqlx::query_scalar(
        "SELECT id FROM dag_run WHERE dag_id = $1 AND run_id = $2 FOR NO KEY UPDATE",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_optional(&mut *db)
    .await?;
    let Some(run) = run else { return Ok(false) };
    let ids = end_tries(&mut *db, dag_id, run_id, now).await?;
    let current: Vec<Uuid> = history::archive(&mut *db, &ids)
        .await?
        .into_iter()
        .map(|(_, new)| new)
        .collect();
    let context = carrier::new_trace();
    reset_task_instances(&mut *db, &current, &context, retries, now).await?;
    requeue(db, run, &context, now).await?;
    Ok(true)
}

/// Airflow's archive stamps the end of tries that have none, and leaves it on the row.
async fn end_tries(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Uuid>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM task_instance WHERE dag_id = $1 AND run_id = $2 ORDER BY id FOR UPDATE",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_all(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE task_instance SET end_date = $2, duration = extract(epoch FROM $2 - start_date) \
          WHERE id = ANY($1) AND end_date IS NULL \
            AND (state IS NULL \
              OR state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))",
    )
    .bind(&ids)
    .bind(now)
    .execute(db)
    .await?;
    Ok(ids)
}

async fn reset_task_instances(
    db: &mut PgConnection,
    ids: &[Uuid],
    context: &serde_json::Value,
    retries: &[Retries],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let task_ids: Vec<&str> = retries.iter().map(|task| task.task_id.as_str()).collect();
    let counts: Vec<i32> = retries.iter().map(|task| task.retries).collect();
    let carriers: Vec<serde_json::Value> = ids.iter().map(|_| carrier::child(context)).collect();
    sqlx::query(
        "UPDATE task_instance t \
            SET state = CASE WHEN t.state = 'running' THEN 'restarting' END, \
                max_tries = CASE WHEN t.state = 'running' THEN t.max_tries \
                                 ELSE coalesce(t.try_number + r.retries, greatest(t.max_tries, t.try_number)) END, \
                external_executor_id = CASE WHEN t.state = 'running' THEN t.external_executor_id END, \
                next_method = CASE WHEN t.state = 'running' THEN t.next_method END, \
                next_kwargs = CASE WHEN t.state = 'running' THEN t.next_kwargs ELSE 'null'::jsonb END, \
                context_carrier = c.carrier, updated_at = $5 \
           FROM unnest($1::uuid[], $2::jsonb[]) AS c (id, carrier) \
           JOIN task_instance own ON own.id = c.id \
           LEFT JOIN unnest($3::text[], $4::integer[]) AS r (task_id, retries) ON r.task_id = own.task_id \
          WHERE t.id = own.id",
    )
    .bind(ids)
    .bind(&carriers)
    .bind(&task_ids)
    .bind(&counts)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

async fn requeue(
    db: &mut PgConnection,
    run: i32,
    context: &serde_json::Value,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE dag_run \
            SET clear_number = clear_number + 1, queued_at = $2, context_carrier = $3, updated_at = $2, \
                state = CASE WHEN state IN ('success', 'failed') THEN 'queued' ELSE state END, \
                start_date = CASE WHEN state IN ('success', 'failed') THEN NULL ELSE start_date END, \
                end_date = CASE WHEN state IN ('success', 'failed') THEN NULL ELSE end_date END, \
                last_scheduling_decision = \
                  CASE WHEN state IN ('success', 'failed') THEN NULL ELSE last_scheduling_decision END \
          WHERE id = $1",
    )
    .bind(run)
    .bind(now)
    .bind(context)
    .execute(db)
    .await?;
    Ok(())
}

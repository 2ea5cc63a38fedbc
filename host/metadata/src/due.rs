//! DAGs whose next run is due, and moving their `next_dagrun*` on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::DagRun;
use scheduler::snapshot::{DueDag, NextDagRun};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::Error;
use crate::rows::{self, dag_run_columns};

/// How many due DAGs one round of a tick takes; the tick goes round again while there are more.
const BATCH: i64 = 200;

/// DAGs with `next_dagrun_create_after <= now` that may have a run now, most overdue first, their rows locked.
/// `airflow: DagModel.dags_needing_dagruns`
///
/// # Errors
/// The database's errors.
pub async fn due_dags(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<DueDag>, Error> {
    // NO KEY UPDATE SKIP LOCKED is Airflow's own lock on these rows: who holds it is making the run already.
    let rows = sqlx::query(
        "SELECT d.dag_id, d.next_dagrun, d.next_dagrun_data_interval_start, \
                d.next_dagrun_data_interval_end, d.next_dagrun_create_after, \
                d.next_dagrun_partition_key, d.next_dagrun_partition_date, \
                coalesce(d.max_active_runs, 16) AS max_active_runs, \
                (SELECT count(*) FROM dag_run r \
                  WHERE r.dag_id = d.dag_id AND r.state IN ('queued', 'running') \
                    AND r.run_type <> 'backfill') AS active_runs \
           FROM dag d \
          WHERE NOT d.is_paused AND NOT d.is_stale AND NOT coalesce(d.has_import_errors, false) \
            AND NOT d.exceeds_max_non_backfill \
            AND d.next_dagrun_create_after <= $1 \
          ORDER BY d.next_dagrun_create_after \
          LIMIT $2 \
            FOR NO KEY UPDATE OF d SKIP LOCKED",
    )
    .bind(now)
    .bind(BATCH)
    .fetch_all(&mut *db)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        due.push(DueDag {
            dag_id: row.try_get("dag_id")?,
            next: next_dagrun(row)?,
            max_active_runs: row.try_get("max_active_runs")?,
            active_runs: row.try_get("active_runs")?,
            existing: None,
        });
    }
    let mut existing = existing_runs(db, &due).await?;
    for dag in &mut due {
        dag.existing = existing.remove(&dag.dag_id);
    }
    Ok(due)
}

/// The `next_dagrun*` columns of a row of `dag`.
pub(crate) fn next_dagrun(row: &PgRow) -> Result<NextDagRun, sqlx::Error> {
    Ok(NextDagRun {
        logical_date: row.try_get("next_dagrun")?,
        data_interval_start: row.try_get("next_dagrun_data_interval_start")?,
        data_interval_end: row.try_get("next_dagrun_data_interval_end")?,
        create_after: row.try_get("next_dagrun_create_after")?,
        partition_key: row.try_get("next_dagrun_partition_key")?,
        partition_date: row.try_get("next_dagrun_partition_date")?,
    })
}

/// Runs that already have the logical date that is due, of whatever type.
async fn existing_runs(
    db: &mut PgConnection,
    due: &[DueDag],
) -> Result<HashMap<String, DagRun>, Error> {
    let dag_ids: Vec<&str> = due.iter().map(|dag| dag.dag_id.as_str()).collect();
    let dates: Vec<Option<DateTime<Utc>>> = due.iter().map(|dag| dag.next.logical_date).collect();
    let rows = sqlx::query(concat!(
        "SELECT ",
        dag_run_columns!(),
        "  FROM unnest($1::text[], $2::timestamptz[]) AS wanted (dag_id, logical_date) \
           JOIN dag_run dr ON dr.dag_id = wanted.dag_id AND dr.logical_date = wanted.logical_date",
    ))
    .bind(&dag_ids)
    .bind(&dates)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| rows::dag_run(row).map(|run| (run.dag_id.clone(), run)))
        .collect()
}

/// Stores when the next run of the DAG is due.
///
/// # Errors
/// The database's errors.
pub async fn set_next(db: &mut PgConnection, dag_id: &str, next: &NextDagRun) -> Result<(), Error> {
    sqlx::query(
        "UPDATE dag SET next_dagrun = $2, next_dagrun_data_interval_start = $3, \
                next_dagrun_data_interval_end = $4, next_dagrun_create_after = $5, \
                next_dagrun_partition_key = $6, next_dagrun_partition_date = $7 \
          WHERE dag_id = $1",
    )
    .bind(dag_id)
    .bind(next.logical_date)
    .bind(next.data_interval_start)
    .bind(next.data_interval_end)
    .bind(next.create_after)
    .bind(&next.partition_key)
    .bind(next.partition_date)
    .execute(db)
    .await?;
    Ok(())
}

/// Recomputes `exceeds_max_non_backfill`. `airflow: SchedulerJobRunner._set_exceeds_max_active_runs`
///
/// # Errors
/// The database's errors.
pub async fn set_exceeds_max_active_runs(
    db: &mut PgConnection,
    dag_ids: &[String],
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE dag d SET exceeds_max_non_backfill = counted.exceeds \
           FROM (SELECT c.dag_id, \
                        (SELECT count(*) FROM dag_run r \
                          WHERE r.dag_id = c.dag_id AND r.state IN ('queued', 'running') \
                            AND r.run_type <> 'backfill') >= coalesce(c.max_active_runs, 16) AS exceeds \
                   FROM dag c WHERE c.dag_id = ANY($1)) AS counted \
          WHERE d.dag_id = counted.dag_id AND d.exceeds_max_non_backfill <> counted.exceeds",
    )
    .bind(dag_ids)
    .execute(db)
    .await?;
    Ok(())
}

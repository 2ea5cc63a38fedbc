//! What is asked of users' own timetables (`modalflow.timetable`), and what they answered. A wish outlives every
//! process: it goes when its answer is written, in the same transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use scheduler::snapshot::NextDagRun;
use sqlx::{PgConnection, Row};

use crate::Error;
use crate::due::{next_dagrun, set_next};

/// What is asked about one DAG.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    pub dag_id: String,
    /// Names the wish: an answer to an earlier one is void.
    pub asked_at: DateTime<Utc>,
    pub failures: i32,
    /// The `dag.next_dagrun*` columns. With a due time only the run's id is asked for, else the whole next run.
    pub next: NextDagRun,
    /// The run to compute the next one from; `None`: there is none yet.
    pub last: Option<AfterRun>,
}

/// A run as a timetable sees it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AfterRun {
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub partition_key: Option<String>,
    pub partition_date: Option<DateTime<Utc>>,
}

/// Asks anew; `after_run_id` is the run to compute the next one from, else it is the newest scheduled one.
///
/// # Errors
/// The database's errors.
pub async fn ask(
    db: &mut PgConnection,
    dag_ids: &[String],
    after_run_id: Option<&str>,
) -> Result<(), Error> {
    if dag_ids.is_empty() {
        return Ok(());
    }
    // clock_timestamp: two wishes of one transaction are two wishes.
    sqlx::query(
        "INSERT INTO modalflow.timetable AS t (dag_id, asked_at, after_run_id) \
         SELECT d.dag_id, clock_timestamp(), $2 FROM dag d WHERE d.dag_id = ANY($1) \
         ON CONFLICT (dag_id) DO UPDATE \
            SET asked_at = EXCLUDED.asked_at, after_run_id = EXCLUDED.after_run_id, failures = 0, \
                not_before = NULL",
    )
    .bind(dag_ids)
    .bind(after_run_id)
    .execute(db)
    .await?;
    Ok(())
}

/// Asks what the run that is due is called, unless that is being asked.
///
/// # Errors
/// The database's errors.
pub async fn ask_name(db: &mut PgConnection, dag_id: &str) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO modalflow.timetable AS t (dag_id, asked_at) VALUES ($1, clock_timestamp()) \
         ON CONFLICT (dag_id) DO UPDATE \
            SET asked_at = EXCLUDED.asked_at, after_run_id = NULL, failures = 0, not_before = NULL \
          WHERE t.asked_at IS NULL",
    )
    .bind(dag_id)
    .execute(db)
    .await?;
    Ok(())
}

/// Whether something is asked that may be answered now.
///
/// # Errors
/// The database's errors.
pub async fn is_asked(db: &mut PgConnection, now: DateTime<Utc>) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM modalflow.timetable t JOIN dag d ON d.dag_id = t.dag_id \
                         WHERE t.asked_at IS NOT NULL AND NOT d.is_stale \
                           AND (t.not_before IS NULL OR t.not_before <= $1))",
    )
    .bind(now)
    .fetch_one(db)
    .await?)
}

/// Everything that is asked now, in the order in which it was asked.
///
/// # Errors
/// The database's errors.
pub async fn wishes(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<Wish>, Error> {
    // airflow: dag_processing.collection._get_latest_runs_stmt: the newest automated run by logical date, of a
    // partitioned DAG by the date of its partition.
    let rows = sqlx::query(
        "SELECT t.dag_id, t.asked_at, t.failures, d.next_dagrun, d.next_dagrun_data_interval_start, \
                d.next_dagrun_data_interval_end, d.next_dagrun_create_after, d.next_dagrun_partition_key, \
                d.next_dagrun_partition_date, r.logical_date, r.data_interval_start, r.data_interval_end, \
                r.run_after, r.partition_key, r.partition_date \
           FROM modalflow.timetable t \
           JOIN dag d ON d.dag_id = t.dag_id \
           LEFT JOIN LATERAL ( \
                SELECT dr.* FROM dag_run dr \
                 WHERE dr.dag_id = t.dag_id \
                   AND CASE WHEN t.after_run_id IS NULL THEN dr.run_type IN ('scheduled', 'backfill') \
                            ELSE dr.run_id = t.after_run_id END \
                 ORDER BY dr.logical_date DESC NULLS LAST, dr.partition_date DESC NULLS LAST, dr.id DESC \
                 LIMIT 1) AS r ON true \
          WHERE t.asked_at IS NOT NULL AND NOT d.is_stale \
            AND (t.not_before IS NULL OR t.not_before <= $1) \
          ORDER BY t.asked_at",
    )
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let run_after: Option<DateTime<Utc>> = row.try_get("run_after")?;
            Ok(Wish {
                dag_id: row.try_get("dag_id")?,
                asked_at: row.try_get("asked_at")?,
                failures: row.try_get("failures")?,
                next: next_dagrun(row)?,
                last: match run_after {
                    None => None,
                    Some(_) => Some(sqlx::FromRow::from_row(row)?),
                },
            })
        })
        .collect()
}

/// The ids that timetables gave to the runs that are due at these times, by DAG.
///
/// # Errors
/// The database's errors.
pub async fn run_ids(
    db: &mut PgConnection,
    dag_ids: &[String],
) -> Result<HashMap<String, (DateTime<Utc>, String)>, Error> {
    let rows: Vec<(String, DateTime<Utc>, String)> = sqlx::query_as(
        "SELECT dag_id, run_after, run_id FROM modalflow.timetable \
          WHERE dag_id = ANY($1) AND run_after IS NOT NULL AND run_id IS NOT NULL",
    )
    .bind(dag_ids)
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(dag_id, run_after, run_id)| (dag_id, (run_after, run_id)))
        .collect())
}

/// Writes an answer: the next run, if that was asked, and its id. Answers whether the wish still stood; dates that
/// Airflow's sync has written meanwhile stay.
///
/// # Errors
/// The database's errors.
pub async fn answer(
    db: &mut PgConnection,
    wish: &Wish,
    next: &NextDagRun,
    run_id: Option<&str>,
) -> Result<bool, Error> {
    // The DAG's row first, as a tick locks them.
    let is_unset: Option<bool> = sqlx::query_scalar(
        "SELECT next_dagrun_create_after IS NULL FROM dag WHERE dag_id = $1 FOR NO KEY UPDATE",
    )
    .bind(&wish.dag_id)
    .fetch_optional(&mut *db)
    .await?;
    let problem: Option<Option<String>> = sqlx::query_scalar(
        "WITH before AS (SELECT problem FROM modalflow.timetable WHERE dag_id = $1) \
         UPDATE modalflow.timetable \
            SET asked_at = NULL, after_run_id = NULL, failures = 0, not_before = NULL, problem = NULL, \
                run_after = $3, run_id = $4 \
          WHERE dag_id = $1 AND asked_at = $2 \
         RETURNING (SELECT problem FROM before)",
    )
    .bind(&wish.dag_id)
    .bind(wish.asked_at)
    .bind(next.create_after)
    .bind(run_id)
    .fetch_optional(&mut *db)
    .await?;
    let Some(problem) = problem else {
        return Ok(false);
    };
    if is_unset == Some(true) && wish.next.create_after.is_none() {
        set_next(db, &wish.dag_id, next).await?;
    }
    if let Some(problem) = problem {
        sqlx::query("DELETE FROM import_error WHERE stacktrace = $1")
            .bind(problem)
            .execute(db)
            .await?;
    }
    Ok(true)
}

/// Keeps the wish for later, and tells Airflow's users: an import error of the DAG's file, which stays until an
/// answer comes or the file is parsed again.
///
/// # Errors
/// The database's errors.
pub async fn fail(
    db: &mut PgConnection,
    wish: &Wish,
    problem: &str,
    not_before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let before: Option<Option<String>> = sqlx::query_scalar(
        "WITH before AS (SELECT problem FROM modalflow.timetable WHERE dag_id = $1) \
         UPDATE modalflow.timetable SET failures = failures + 1, not_before = $3, problem = $4 \
          WHERE dag_id = $1 AND asked_at = $2 \
         RETURNING (SELECT problem FROM before)",
    )
    .bind(&wish.dag_id)
    .bind(wish.asked_at)
    .bind(not_before)
    .bind(problem)
    .fetch_optional(&mut *db)
    .await?;
    let Some(before) = before else {
        return Ok(false);
    };
    sqlx::query("DELETE FROM import_error WHERE stacktrace = ANY($1)")
        .bind([before.as_deref().unwrap_or(problem), problem])
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO import_error (timestamp, filename, bundle_name, stacktrace) \
         SELECT $2, relative_fileloc, bundle_name, $3 FROM dag WHERE dag_id = $1",
    )
    .bind(&wish.dag_id)
    .bind(now)
    .bind(problem)
    .execute(db)
    .await?;
    Ok(true)
}

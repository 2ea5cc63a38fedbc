//! What the commands show of runs, task instances and XComs.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::Error;

/// A run as `runs list` shows it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct RunRow {
    pub dag_id: String,
    pub run_id: String,
    pub run_type: String,
    pub state: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    /// Seconds from start to end, or to now while it runs.
    pub duration: Option<f64>,
    pub conf: Option<serde_json::Value>,
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub dag_id: Option<String>,
    pub run_id: Option<String>,
    pub state: Option<String>,
    pub limit: i64,
}

/// Runs, newest first.
///
/// # Errors
/// The database's errors.
pub async fn runs(pool: &PgPool, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT dag_id, run_id, run_type, state, logical_date, run_after, start_date, end_date, \
                extract(epoch FROM coalesce(end_date, now()) - start_date)::float8 AS duration, conf \
           FROM dag_run \
          WHERE ($1::text IS NULL OR dag_id = $1) AND ($2::text IS NULL OR run_id = $2) \
            AND ($3::text IS NULL OR state = $3) \
          ORDER BY run_after DESC, id DESC LIMIT $4",
    )
    .bind(&filter.dag_id)
    .bind(&filter.run_id)
    .bind(&filter.state)
    .bind(filter.limit)
    .fetch_all(pool)
    .await?)
}

/// A task instance as `tasks list` shows it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct TaskRow {
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    /// -1 when not mapped.
    pub map_index: i32,
    /// Null: nothing has happened to it yet.
    pub state: Option<String>,
    pub try_number: i32,
    pub max_tries: i32,
    pub operator: Option<String>,
    pub pool: String,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    /// Seconds.
    pub duration: Option<f64>,
    pub hostname: Option<String>,
    /// Modal's function call.
    pub external_executor_id: Option<String>,
    /// How often whoever runs containers lost it, in all its tries; none of that used one up.
    pub platform_faults: i64,
    pub last_platform_fault: Option<String>,
    pub id: Uuid,
}

/// The task instances of a run, in the order in which they started.
///
/// # Errors
/// The database's errors.
pub async fn task_instances(
    pool: &PgPool,
    dag_id: &str,
    run_id: &str,
) -> Result<Vec<TaskRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT dag_id, run_id, task_id, map_index, state, try_number, max_tries, operator, pool, \
                start_date, end_date, \
                coalesce(CASE WHEN state IN ('running') THEN extract(epoch FROM now() - start_date)::float8 \
                         END, duration) AS duration, \
                hostname, external_executor_id, id, \
                coalesce(faults.count, 0) AS platform_faults, faults.last_reason AS last_platform_fault \
           FROM task_instance ti \
           LEFT JOIN LATERAL (SELECT sum(q.count)::bigint AS count, \
                                     (array_agg(q.last_reason ORDER BY q.try_number DESC))[1] AS last_reason \
                                FROM modalflow.requeue q \
                               WHERE q.dag_id = ti.dag_id AND q.run_id = ti.run_id AND q.task_id = ti.task_id \
                                 AND q.map_index = ti.map_index) AS faults ON true \
          WHERE dag_id = $1 AND run_id = $2 \
          ORDER BY start_date NULLS LAST, task_id, map_index",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_all(pool)
    .await?)
}

/// The newest run of a DAG, by `run_after`.
///
/// # Errors
/// The database's errors.
pub async fn newest_run(pool: &PgPool, dag_id: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT run_id FROM dag_run WHERE dag_id = $1 ORDER BY run_after DESC, id DESC LIMIT 1",
    )
    .bind(dag_id)
    .fetch_optional(pool)
    .await?)
}

/// An XCom's row: the value column as it is stored, which may be a reference of the XCom backend.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct XcomRow {
    pub task_id: String,
    pub map_index: i32,
    pub key: String,
    pub value: Option<serde_json::Value>,
    pub timestamp: DateTime<Utc>,
}

/// XComs of a run; of one task and key when they are given.
///
/// # Errors
/// The database's errors.
pub async fn xcoms(
    pool: &PgPool,
    dag_id: &str,
    run_id: &str,
    task_id: Option<&str>,
    key: Option<&str>,
) -> Result<Vec<XcomRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT task_id, map_index, key, value, timestamp FROM xcom \
          WHERE dag_id = $1 AND run_id = $2 AND ($3::text IS NULL OR task_id = $3) \
            AND ($4::text IS NULL OR key = $4) \
          ORDER BY task_id, map_index, key",
    )
    .bind(dag_id)
    .bind(run_id)
    .bind(task_id)
    .bind(key)
    .fetch_all(pool)
    .await?)
}

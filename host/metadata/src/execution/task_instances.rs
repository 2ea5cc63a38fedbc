//! Questions about task instances other than one's own.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// Conditions that must all hold; an empty list or `None` is no condition.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub dag_id: String,
    pub map_index: Option<i32>,
    pub task_ids: Vec<String>,
    pub logical_dates: Vec<DateTime<Utc>>,
    pub run_ids: Vec<String>,
}

/// A task instance that met a [`Filter`].
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Found {
    pub run_id: String,
    pub task_id: String,
    pub map_index: i32,
    pub state: Option<String>,
}

/// # Errors
/// The database's errors.
pub async fn find(db: &mut PgConnection, filter: &Filter) -> Result<Vec<Found>, Error> {
    Ok(sqlx::query_as(
        "SELECT ti.run_id, ti.task_id, ti.map_index, ti.state \
           FROM task_instance ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
          WHERE ti.dag_id = $1 \
            AND ($2::integer IS NULL OR ti.map_index = $2) \
            AND (cardinality($3::text[]) = 0 OR ti.task_id = ANY($3)) \
            AND (cardinality($4::timestamptz[]) = 0 OR dr.logical_date = ANY($4)) \
            AND (cardinality($5::text[]) = 0 OR ti.run_id = ANY($5)) \
          ORDER BY ti.run_id, ti.task_id, ti.map_index",
    )
    .bind(&filter.dag_id)
    .bind(filter.map_index)
    .bind(&filter.task_ids)
    .bind(&filter.logical_dates)
    .bind(&filter.run_ids)
    .fetch_all(db)
    .await?)
}

/// Which states count.
#[derive(Debug, Clone, Default)]
pub struct States {
    pub named: Vec<String>,
    /// *No state* counts too.
    pub none: bool,
}

/// How many task instances meet the filter, are in one of the states (all, when none is given) and, if `pairs` is
/// given, are one of these (task_id, map_index).
///
/// # Errors
/// The database's errors.
pub async fn count(
    db: &mut PgConnection,
    filter: &Filter,
    states: &States,
    pairs: Option<(&[String], &[i32])>,
) -> Result<i64, Error> {
    let (task_ids, map_indexes) = pairs.unwrap_or_default();
    Ok(sqlx::query_scalar(
        "SELECT count(*) \
           FROM task_instance ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
          WHERE ti.dag_id = $1 \
            AND ($2::integer IS NULL OR ti.map_index = $2) \
            AND (cardinality($3::text[]) = 0 OR ti.task_id = ANY($3)) \
            AND (cardinality($4::timestamptz[]) = 0 OR dr.logical_date = ANY($4)) \
            AND (cardinality($5::text[]) = 0 OR ti.run_id = ANY($5)) \
            AND ((cardinality($6::text[]) = 0 AND NOT $7) OR ti.state = ANY($6) OR ($7 AND ti.state IS NULL)) \
            AND (NOT $8 OR (ti.task_id, ti.map_index) IN (SELECT * FROM unnest($9::text[], $10::integer[])))",
    )
    .bind(&filter.dag_id)
    .bind(filter.map_index)
    .bind(&filter.task_ids)
    .bind(&filter.logical_dates)
    .bind(&filter.run_ids)
    .bind(&states.named)
    .bind(states.none)
    .bind(pairs.is_some())
    .bind(task_ids)
    .bind(map_indexes)
    .fetch_one(db)
    .await?)
}

/// A task instance of an earlier run.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Previous {
    pub task_id: String,
    pub dag_id: String,
    pub run_id: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    pub state: Option<String>,
    pub try_number: i32,
    pub map_index: i32,
    pub duration: Option<f64>,
}

/// The newest task instance of this task before `logical_date`, in `state` if one is given.
///
/// # Errors
/// The database's errors.
pub async fn previous(
    db: &mut PgConnection,
    dag_id: &str,
    task_id: &str,
    map_index: i32,
    logical_date: Option<DateTime<Utc>>,
    state: Option<&str>,
) -> Result<Option<Previous>, Error> {
    Ok(sqlx::query_as(
        "SELECT ti.task_id, ti.dag_id, ti.run_id, dr.logical_date, ti.start_date, ti.end_date, ti.state, \
                ti.try_number, ti.map_index, ti.duration \
           FROM task_instance ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
          WHERE ti.dag_id = $1 AND ti.task_id = $2 AND ti.map_index = $3 \
            AND ($4::timestamptz IS NULL OR dr.logical_date < $4) \
            AND ($5::text IS NULL OR ti.state = $5) \
          ORDER BY dr.logical_date DESC LIMIT 1",
    )
    .bind(dag_id)
    .bind(task_id)
    .bind(map_index)
    .bind(logical_date)
    .bind(state)
    .fetch_optional(db)
    .await?)
}

/// A finished task instance of a run.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Breadcrumb {
    pub task_id: String,
    pub map_index: i32,
    pub state: Option<String>,
    pub operator: Option<String>,
    pub duration: Option<f64>,
}

/// # Errors
/// The database's errors.
pub async fn breadcrumbs(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
) -> Result<Vec<Breadcrumb>, Error> {
    Ok(sqlx::query_as(
        "SELECT task_id, map_index, state, operator, duration \
           FROM task_instance \
          WHERE dag_id = $1 AND run_id = $2 \
            AND state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed') \
          ORDER BY task_id, map_index",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_all(db)
    .await?)
}

/// When the first reschedule of the try `id` was.
///
/// # Errors
/// The database's errors.
pub async fn first_reschedule(
    db: &mut PgConnection,
    id: Uuid,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT start_date FROM task_reschedule WHERE ti_id = $1 ORDER BY id LIMIT 1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?)
}

/// Where in which DAG a task instance is, and the version of the DAG that its run uses.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Place {
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    pub map_index: i32,
}

/// # Errors
/// The database's errors.
pub async fn place(db: &mut PgConnection, id: Uuid) -> Result<Option<Place>, Error> {
    Ok(
        sqlx::query_as(
            "SELECT dag_id, run_id, task_id, map_index FROM task_instance WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(db)
        .await?,
    )
}

//! Rows of Airflow's tables turned into nouns.

use chrono::{DateTime, Utc};
use model::{DagRun, TaskInstance};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::Error;

/// The columns that [`dag_run`] reads, of a table aliased `dr`.
macro_rules! dag_run_columns {
    () => {
        "dr.id, dr.dag_id, dr.run_id, dr.state, dr.run_type, dr.logical_date, dr.data_interval_start, \
         dr.data_interval_end, dr.run_after, dr.queued_at, dr.start_date, dr.end_date, \
         dr.last_scheduling_decision, dr.clear_number, dr.backfill_id, dr.bundle_version, \
         dr.created_dag_version_id, dr.context_carrier"
    };
}
pub(crate) use dag_run_columns;

/// The columns that [`task_instance`] reads, of a table aliased `ti`.
macro_rules! task_instance_columns {
    () => {
        "ti.id, ti.task_id, ti.map_index, ti.state, ti.try_number, ti.max_tries, ti.start_date, \
         ti.end_date, ti.pool, ti.pool_slots, ti.queue, ti.priority_weight, ti.dag_version_id, \
         ti.retry_delay_override, ti.next_method IS NOT NULL AS has_next_method"
    };
}
pub(crate) use task_instance_columns;

/// # Errors
/// [`Error::Row`] when a state or type is one that Airflow 3.3.2 does not have.
pub(crate) fn dag_run(row: &PgRow) -> Result<DagRun, Error> {
    let run_id: String = row.try_get("run_id")?;
    Ok(DagRun {
        id: row.try_get("id")?,
        dag_id: row.try_get("dag_id")?,
        state: named(row, "dag_run", "state", &run_id)?,
        run_type: named(row, "dag_run", "run_type", &run_id)?,
        run_id,
        logical_date: row.try_get("logical_date")?,
        data_interval_start: row.try_get("data_interval_start")?,
        data_interval_end: row.try_get("data_interval_end")?,
        run_after: row.try_get("run_after")?,
        queued_at: row.try_get("queued_at")?,
        start_date: row.try_get("start_date")?,
        end_date: row.try_get("end_date")?,
        last_scheduling_decision: row.try_get("last_scheduling_decision")?,
        clear_number: row.try_get("clear_number")?,
        backfill_id: row.try_get("backfill_id")?,
        bundle_version: row.try_get("bundle_version")?,
        created_dag_version_id: row.try_get("created_dag_version_id")?,
        context_carrier: row
            .try_get::<Option<serde_json::Value>, _>("context_carrier")?
            .unwrap_or_default(),
    })
}

/// # Errors
/// [`Error::Row`] when the state is one that Airflow 3.3.2 does not have.
pub(crate) fn task_instance(row: &PgRow) -> Result<TaskInstance, Error> {
    let id: Uuid = row.try_get("id")?;
    Ok(TaskInstance {
        id,
        task_id: row.try_get("task_id")?,
        map_index: row.try_get("map_index")?,
        state: optional_name(row, "task_instance", "state", &id)?,
        try_number: row.try_get("try_number")?,
        max_tries: row.try_get("max_tries")?,
        start_date: row.try_get::<Option<DateTime<Utc>>, _>("start_date")?,
        end_date: row.try_get("end_date")?,
        pool: row.try_get("pool")?,
        pool_slots: row.try_get("pool_slots")?,
        queue: row
            .try_get::<Option<String>, _>("queue")?
            .unwrap_or_default(),
        priority_weight: row
            .try_get::<Option<i32>, _>("priority_weight")?
            .unwrap_or(1),
        dag_version_id: row.try_get("dag_version_id")?,
        retry_delay_override: row.try_get("retry_delay_override")?,
        has_next_method: row.try_get("has_next_method")?,
    })
}

/// A text column that holds one of an enum's names.
pub(crate) fn named<T>(
    row: &PgRow,
    table: &'static str,
    column: &'static str,
    what: &dyn ToString,
) -> Result<T, Error>
where
    T: std::str::FromStr<Err = model::UnknownName>,
{
    let text: String = row.try_get(column)?;
    text.parse()
        .map_err(|source: model::UnknownName| Error::Row {
            table,
            column,
            what: what.to_string(),
            source: Box::new(source),
        })
}

/// As [`named`], for a column that may be null.
pub(crate) fn optional_name<T>(
    row: &PgRow,
    table: &'static str,
    column: &'static str,
    what: &dyn ToString,
) -> Result<Option<T>, Error>
where
    T: std::str::FromStr<Err = model::UnknownName>,
{
    match row.try_get::<Option<String>, _>(column)? {
        Some(_) => named(row, table, column, what).map(Some),
        None => Ok(None),
    }
}

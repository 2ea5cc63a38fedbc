//! Runs, as tasks see them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// The columns of [`DagRunRow`], of a `dag_run` aliased `dr`; prefixed, since they stand beside others.
macro_rules! dag_run_columns {
    () => {
        "dr.dag_id AS run_dag_id, dr.run_id AS run_run_id, dr.logical_date AS run_logical_date, \
         dr.data_interval_start AS run_data_interval_start, dr.data_interval_end AS run_data_interval_end, \
         dr.run_after AS run_run_after, dr.start_date AS run_start_date, dr.end_date AS run_end_date, \
         dr.clear_number AS run_clear_number, dr.run_type AS run_run_type, dr.state AS run_state, \
         dr.conf::text AS run_conf, dr.triggering_user_name AS run_triggering_user_name, \
         dr.partition_key AS run_partition_key, dr.partition_date AS run_partition_date "
    };
}
pub(crate) use dag_run_columns;

/// What a task may know of a run.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DagRunRow {
    #[sqlx(rename = "run_dag_id")]
    pub dag_id: String,
    #[sqlx(rename = "run_run_id")]
    pub run_id: String,
    #[sqlx(rename = "run_logical_date")]
    pub logical_date: Option<DateTime<Utc>>,
    #[sqlx(rename = "run_data_interval_start")]
    pub data_interval_start: Option<DateTime<Utc>>,
    #[sqlx(rename = "run_data_interval_end")]
    pub data_interval_end: Option<DateTime<Utc>>,
    #[sqlx(rename = "run_run_after")]
    pub run_after: DateTime<Utc>,
    #[sqlx(rename = "run_start_date")]
    pub start_date: Option<DateTime<Utc>>,
    #[sqlx(rename = "run_end_date")]
    pub end_date: Option<DateTime<Utc>>,
    #[sqlx(rename = "run_clear_number")]
    pub clear_number: i32,
    #[sqlx(rename = "run_run_type")]
    pub run_type: String,
    #[sqlx(rename = "run_state")]
    pub state: Option<String>,
    /// JSON as text.
    #[sqlx(rename = "run_conf")]
    pub conf: Option<String>,
    #[sqlx(rename = "run_triggering_user_name")]
    pub triggering_user_name: Option<String>,
    #[sqlx(rename = "run_partition_key")]
    pub partition_key: Option<String>,
    #[sqlx(rename = "run_partition_date")]
    pub partition_date: Option<DateTime<Utc>>,
}

/// # Errors
/// The database's errors.
pub async fn find(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
) -> Result<Option<DagRunRow>, Error> {
    Ok(sqlx::query_as(concat!(
        "SELECT ",
        dag_run_columns!(),
        "FROM dag_run dr WHERE dr.dag_id = $1 AND dr.run_id = $2"
    ))
    .bind(dag_id)
    .bind(run_id)
    .fetch_optional(db)
    .await?)
}

/// The state of a run, if there is one.
///
/// # Errors
/// The database's errors.
pub async fn state(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
) -> Result<Option<Option<String>>, Error> {
    Ok(
        sqlx::query_scalar("SELECT state FROM dag_run WHERE dag_id = $1 AND run_id = $2")
            .bind(dag_id)
            .bind(run_id)
            .fetch_optional(db)
            .await?,
    )
}

/// The newest run of the DAG before `logical_date`, in `state` if one is given.
///
/// # Errors
/// The database's errors.
pub async fn previous(
    db: &mut PgConnection,
    dag_id: &str,
    logical_date: DateTime<Utc>,
    state: Option<&str>,
) -> Result<Option<DagRunRow>, Error> {
    Ok(sqlx::query_as(concat!(
        "SELECT ",
        dag_run_columns!(),
        "FROM dag_run dr \
          WHERE dr.dag_id = $1 AND dr.logical_date < $2 AND ($3::text IS NULL OR dr.state = $3) \
          ORDER BY dr.logical_date DESC LIMIT 1"
    ))
    .bind(dag_id)
    .bind(logical_date)
    .bind(state)
    .fetch_optional(db)
    .await?)
}

/// The newest successful run before that of the task instance `id`.
///
/// # Errors
/// The database's errors.
pub async fn previous_successful_of(
    db: &mut PgConnection,
    id: Uuid,
) -> Result<Option<DagRunRow>, Error> {
    Ok(sqlx::query_as(concat!(
        "SELECT ",
        dag_run_columns!(),
        "FROM task_instance ti \
         JOIN dag_run mine ON mine.dag_id = ti.dag_id AND mine.run_id = ti.run_id \
         JOIN dag_run dr ON dr.dag_id = mine.dag_id AND dr.logical_date < mine.logical_date \
          WHERE ti.id = $1 AND dr.state = 'success' \
          ORDER BY dr.logical_date DESC LIMIT 1"
    ))
    .bind(id)
    .fetch_optional(db)
    .await?)
}

/// How many runs of the DAG meet all conditions; an empty list is no condition.
///
/// # Errors
/// The database's errors.
pub async fn count(
    db: &mut PgConnection,
    dag_id: &str,
    logical_dates: &[DateTime<Utc>],
    run_ids: &[String],
    states: &[String],
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM dag_run \
          WHERE dag_id = $1 \
            AND (cardinality($2::timestamptz[]) = 0 OR logical_date = ANY($2)) \
            AND (cardinality($3::text[]) = 0 OR run_id = ANY($3)) \
            AND (cardinality($4::text[]) = 0 OR state = ANY($4))",
    )
    .bind(dag_id)
    .bind(logical_dates)
    .bind(run_ids)
    .bind(states)
    .fetch_one(db)
    .await?)
}

/// One asset event that triggered a run, with its asset and aliases.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConsumedEvent {
    pub name: String,
    pub uri: String,
    /// JSON as text.
    pub asset_extra: String,
    /// JSON as text.
    pub extra: String,
    pub source_task_id: Option<String>,
    pub source_dag_id: Option<String>,
    pub source_run_id: Option<String>,
    pub source_map_index: Option<i32>,
    pub source_aliases: Vec<String>,
    pub timestamp: DateTime<Utc>,
    pub partition_key: Option<String>,
}

/// The asset events that triggered the run.
///
/// # Errors
/// The database's errors.
pub async fn consumed_asset_events(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
) -> Result<Vec<ConsumedEvent>, Error> {
    Ok(sqlx::query_as(
        "SELECT a.name, a.uri, a.extra::text AS asset_extra, e.extra::text AS extra, \
                e.source_task_id, e.source_dag_id, e.source_run_id, e.source_map_index, \
                ARRAY(SELECT l.name FROM asset_alias_asset_event la \
                        JOIN asset_alias l ON l.id = la.alias_id \
                       WHERE la.event_id = e.id ORDER BY l.name)::text[] AS source_aliases, \
                e.timestamp, e.partition_key \
           FROM dag_run dr \
           JOIN dagrun_asset_event de ON de.dag_run_id = dr.id \
           JOIN asset_event e ON e.id = de.event_id \
           JOIN asset a ON a.id = e.asset_id \
          WHERE dr.dag_id = $1 AND dr.run_id = $2 \
          ORDER BY e.timestamp, e.id",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_all(db)
    .await?)
}

/// Whether and how a DAG may be triggered.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Triggerable {
    pub has_import_errors: bool,
    /// JSON list as text; none allows every type.
    pub allowed_run_types: Option<String>,
}

/// `None` when the DAG does not exist or its file is gone.
///
/// # Errors
/// The database's errors.
pub async fn triggerable(
    db: &mut PgConnection,
    dag_id: &str,
) -> Result<Option<Triggerable>, Error> {
    Ok(sqlx::query_as(
        "SELECT coalesce(has_import_errors, false) AS has_import_errors, \
                allowed_run_types::text AS allowed_run_types \
           FROM dag WHERE dag_id = $1 AND NOT is_stale",
    )
    .bind(dag_id)
    .fetch_optional(db)
    .await?)
}

/// Who triggered the run of the task instance `id`; chains of triggered runs keep the person at their start.
///
/// # Errors
/// The database's errors.
pub async fn triggering_user_of(db: &mut PgConnection, id: Uuid) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT dr.triggering_user_name \
           FROM task_instance ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
          WHERE ti.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?
    .flatten())
}

/// What a task asked to be triggered, as it is remembered in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Triggered<'a> {
    pub dag_id: &'a str,
    pub run_id: &'a str,
    pub note: Option<&'a str>,
}

/// Notes in the audit log which try triggered the run, and keeps the run's note.
///
/// # Errors
/// The database's errors.
pub async fn note_trigger(
    db: &mut PgConnection,
    caller: Uuid,
    triggered: Triggered<'_>,
    dag_run_id: i32,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO log (dttm, dag_id, task_id, run_id, map_index, event, logical_date, owner, extra, try_number) \
         SELECT $4, ti.dag_id, ti.task_id, ti.run_id, ti.map_index, 'trigger dag run', dr.logical_date, d.owners, \
                jsonb_build_object('dag_id', $2::text, 'run_id', $3::text)::text, ti.try_number \
           FROM task_instance ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
           JOIN dag d ON d.dag_id = ti.dag_id \
          WHERE ti.id = $1",
    )
    .bind(caller)
    .bind(triggered.dag_id)
    .bind(triggered.run_id)
    .bind(now)
    .execute(&mut *db)
    .await?;
    if let Some(note) = triggered.note {
        sqlx::query(
            "INSERT INTO dag_run_note (dag_run_id, content, created_at, updated_at) VALUES ($1, $2, $3, $3)",
        )
        .bind(dag_run_id)
        .bind(note)
        .bind(now)
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Whether this very try triggered the run since `since`, with this conf and logical date: the same request came
/// twice, because its first answer was lost.
///
/// # Errors
/// The database's errors.
pub async fn was_triggered_by(
    db: &mut PgConnection,
    caller: Uuid,
    triggered: Triggered<'_>,
    conf: &serde_json::Value,
    logical_date: Option<DateTime<Utc>>,
    since: DateTime<Utc>,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS ( \
           SELECT 1 \
             FROM task_instance ti \
             JOIN log l ON l.dag_id = ti.dag_id AND l.task_id = ti.task_id AND l.run_id = ti.run_id \
                       AND l.map_index = ti.map_index AND l.try_number = ti.try_number \
             JOIN dag_run dr ON dr.dag_id = $2 AND dr.run_id = $3 \
            WHERE ti.id = $1 AND l.event = 'trigger dag run' AND l.dttm >= $6 \
              AND l.extra = jsonb_build_object('dag_id', $2::text, 'run_id', $3::text)::text \
              AND dr.conf = $4 AND dr.logical_date IS NOT DISTINCT FROM $5)",
    )
    .bind(caller)
    .bind(triggered.dag_id)
    .bind(triggered.run_id)
    .bind(conf)
    .bind(logical_date)
    .bind(since)
    .fetch_one(db)
    .await?)
}

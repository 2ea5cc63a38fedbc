//! Asset events, as tasks see them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::Error;

/// Whose events.
#[derive(Debug, Clone)]
pub enum Of<'a> {
    /// An asset by both; by one of them it must be active.
    Asset {
        name: Option<&'a str>,
        uri: Option<&'a str>,
    },
    Alias {
        name: &'a str,
    },
}

/// Which events.
#[derive(Debug, Clone)]
pub struct Range {
    pub after: Option<DateTime<Utc>>,
    pub before: Option<DateTime<Utc>>,
    pub ascending: bool,
    pub limit: Option<i64>,
}

/// An event with its asset. Extras are JSON as text.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EventRow {
    pub id: i32,
    pub timestamp: DateTime<Utc>,
    pub extra: String,
    pub name: String,
    pub uri: String,
    pub group: String,
    pub asset_extra: String,
    pub source_task_id: Option<String>,
    pub source_dag_id: Option<String>,
    pub source_run_id: Option<String>,
    pub source_map_index: Option<i32>,
    pub partition_key: Option<String>,
}

/// # Errors
/// The database's errors.
pub async fn find(
    db: &mut PgConnection,
    of: &Of<'_>,
    range: &Range,
) -> Result<Vec<EventRow>, Error> {
    let (name, uri, alias) = match of {
        Of::Asset { name, uri } => (*name, *uri, None),
        Of::Alias { name } => (None, None, Some(*name)),
    };
    Ok(sqlx::query_as(
        "SELECT e.id, e.timestamp, e.extra::text AS extra, a.name, a.uri, a.\"group\", \
                a.extra::text AS asset_extra, e.source_task_id, e.source_dag_id, e.source_run_id, \
                e.source_map_index, e.partition_key \
           FROM asset_event e \
           JOIN asset a ON a.id = e.asset_id \
          WHERE ($1::text IS NULL OR a.name = $1) \
            AND ($2::text IS NULL OR a.uri = $2) \
            AND ($3::text IS NOT NULL \
              OR ($1 IS NOT NULL AND $2 IS NOT NULL) \
              OR EXISTS (SELECT 1 FROM asset_active active WHERE active.name = a.name AND active.uri = a.uri)) \
            AND ($3::text IS NULL \
              OR EXISTS (SELECT 1 FROM asset_alias_asset_event le JOIN asset_alias l ON l.id = le.alias_id \
                          WHERE le.event_id = e.id AND l.name = $3)) \
            AND ($4::timestamptz IS NULL OR e.timestamp >= $4) \
            AND ($5::timestamptz IS NULL OR e.timestamp <= $5) \
          ORDER BY CASE WHEN $6 THEN e.timestamp END ASC, CASE WHEN $6 THEN e.id END ASC, \
                   e.timestamp DESC, e.id DESC \
          LIMIT $7",
    )
    .bind(name)
    .bind(uri)
    .bind(alias)
    .bind(range.after)
    .bind(range.before)
    .bind(range.ascending)
    .bind(range.limit)
    .fetch_all(db)
    .await?)
}

/// A run that an event brought about.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct CreatedRun {
    pub event_id: i32,
    pub run_id: String,
    pub dag_id: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    pub state: Option<String>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub partition_key: Option<String>,
    pub run_after: DateTime<Utc>,
}

/// # Errors
/// The database's errors.
pub async fn created_runs(
    db: &mut PgConnection,
    event_ids: &[i32],
) -> Result<Vec<CreatedRun>, Error> {
    if event_ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as(
        "SELECT de.event_id, dr.run_id, dr.dag_id, dr.logical_date, dr.start_date, dr.end_date, dr.state, \
                dr.data_interval_start, dr.data_interval_end, dr.partition_key, dr.run_after \
           FROM dagrun_asset_event de JOIN dag_run dr ON dr.id = de.dag_run_id \
          WHERE de.event_id = ANY($1) \
          ORDER BY dr.id",
    )
    .bind(event_ids)
    .fetch_all(db)
    .await?)
}

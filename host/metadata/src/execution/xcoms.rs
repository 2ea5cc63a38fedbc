//! XComs: the rows; what a row stands for is the XCom plugin's business.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// One XCom of one task instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    pub dag_id: &'a str,
    pub run_id: &'a str,
    pub task_id: &'a str,
    pub map_index: i32,
    pub key: &'a str,
}

/// A row: where it belongs, and its `value` column as JSON text.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Row {
    pub run_id: String,
    pub map_index: i32,
    pub value: String,
}

macro_rules! rows_of {
    ($rest:literal) => {
        concat!(
            "SELECT x.run_id, x.map_index, coalesce(x.value::text, 'null') AS value \
               FROM xcom x JOIN dag_run dr ON dr.id = x.dag_run_id \
              WHERE x.dag_id = $1 AND x.task_id = $3 AND x.key = $4 \
                AND CASE WHEN $5 \
                         THEN coalesce(dr.logical_date, dr.run_after) <= \
                              (SELECT coalesce(own.logical_date, own.run_after) FROM dag_run own \
                                WHERE own.dag_id = $1 AND own.run_id = $2) \
                         ELSE x.run_id = $2 END ",
            $rest
        )
    };
}

/// The XCom of one map index; with `prior_dates` the newest of this run and earlier ones.
/// `airflow: XComModel.get_many`
///
/// # Errors
/// The database's errors.
pub async fn one(
    db: &mut PgConnection,
    at: &Address<'_>,
    prior_dates: bool,
) -> Result<Option<Row>, Error> {
    Ok(sqlx::query_as(rows_of!(
        "AND x.map_index = $6 ORDER BY dr.logical_date DESC, x.timestamp DESC LIMIT 1"
    ))
    .bind(at.dag_id)
    .bind(at.run_id)
    .bind(at.task_id)
    .bind(at.key)
    .bind(prior_dates)
    .bind(at.map_index)
    .fetch_optional(db)
    .await?)
}

/// The XComs of all map indexes, lowest first. `at.map_index` does not count.
///
/// # Errors
/// The database's errors.
pub async fn all(
    db: &mut PgConnection,
    at: &Address<'_>,
    prior_dates: bool,
) -> Result<Vec<Row>, Error> {
    Ok(sqlx::query_as(rows_of!("ORDER BY x.map_index"))
        .bind(at.dag_id)
        .bind(at.run_id)
        .bind(at.task_id)
        .bind(at.key)
        .bind(prior_dates)
        .fetch_all(db)
        .await?)
}

/// Which XCom of a sequence is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nth {
    FromStart(i64),
    /// 0 is the last one.
    FromEnd(i64),
}

/// The n-th XCom by map index. With `only_values`, rows without a value are passed over.
///
/// # Errors
/// The database's errors.
pub async fn nth(
    db: &mut PgConnection,
    at: &Address<'_>,
    nth: Nth,
    prior_dates: bool,
) -> Result<Option<Row>, Error> {
    let (statement, offset) = match nth {
        Nth::FromStart(offset) => (rows_of!("ORDER BY x.map_index LIMIT 1 OFFSET $6"), offset),
        Nth::FromEnd(offset) => (
            rows_of!("ORDER BY x.map_index DESC LIMIT 1 OFFSET $6"),
            offset,
        ),
    };
    Ok(sqlx::query_as(statement)
        .bind(at.dag_id)
        .bind(at.run_id)
        .bind(at.task_id)
        .bind(at.key)
        .bind(prior_dates)
        .bind(offset)
        .fetch_optional(db)
        .await?)
}

/// How many map indexes have this XCom.
///
/// # Errors
/// The database's errors.
pub async fn count(db: &mut PgConnection, at: &Address<'_>) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND key = $4",
    )
    .bind(at.dag_id)
    .bind(at.run_id)
    .bind(at.task_id)
    .bind(at.key)
    .fetch_one(db)
    .await?)
}

/// What is known of who wants to write an XCom, and of where.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Writer {
    pub run_exists: bool,
    /// The try that the token names is, or was, one of the task instance that the XCom belongs to.
    pub is_own: bool,
    /// The token's try is the current one.
    pub is_current: bool,
    /// The state of the task instance that the XCom belongs to; the outer `None` when there is none.
    pub target_exists: bool,
    pub target_state: Option<String>,
    pub target_try_number: Option<i32>,
}

/// # Errors
/// The database's errors.
pub async fn writer(
    db: &mut PgConnection,
    caller: Uuid,
    at: &Address<'_>,
) -> Result<Writer, Error> {
    Ok(sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM dag_run WHERE dag_id = $2 AND run_id = $3) AS run_exists, \
                coalesce(target.id = $1, false) \
                  OR EXISTS (SELECT 1 FROM task_instance_history h \
                              WHERE h.task_instance_id = $1 AND h.dag_id = $2 AND h.run_id = $3 \
                                AND h.task_id = $4 AND h.map_index = $5) AS is_own, \
                coalesce(target.id = $1, false) \
                  OR EXISTS (SELECT 1 FROM task_instance WHERE id = $1) AS is_current, \
                target.id IS NOT NULL AS target_exists, \
                target.state AS target_state, \
                target.try_number AS target_try_number \
           FROM (SELECT 1) one \
           LEFT JOIN task_instance target \
             ON target.dag_id = $2 AND target.run_id = $3 AND target.task_id = $4 AND target.map_index = $5",
    )
    .bind(caller)
    .bind(at.dag_id)
    .bind(at.run_id)
    .bind(at.task_id)
    .bind(at.map_index)
    .fetch_one(db)
    .await?)
}

/// What is stored of a value.
#[derive(Debug, Clone)]
pub struct NewXcom<'a> {
    /// JSON as text.
    pub value: &'a str,
    pub dag_result: bool,
    /// The number of mapped task instances that the value expands into.
    pub mapped_length: Option<i32>,
}

/// What became of a value that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    NoDagRun,
    /// `replaced`: the column as it was before, if there was a row.
    Yes {
        replaced: Option<String>,
    },
}

/// Stores one XCom in place of an earlier one. `airflow: XComModel.set`
///
/// # Errors
/// The database's errors; a foreign key violation when there is no such task instance.
pub async fn store(
    db: &mut PgConnection,
    at: &Address<'_>,
    new: &NewXcom<'_>,
    now: DateTime<Utc>,
) -> Result<Stored, Error> {
    let (stored, replaced): (i64, Option<String>) = sqlx::query_as(
        "WITH run AS ( \
           SELECT id FROM dag_run WHERE dag_id = $1 AND run_id = $2 \
         ), before AS ( \
           SELECT coalesce(x.value::text, 'null') AS value FROM xcom x JOIN run ON run.id = x.dag_run_id \
            WHERE x.task_id = $3 AND x.map_index = $4 AND x.key = $5 \
         ), mapped AS ( \
           INSERT INTO task_map (dag_id, task_id, run_id, map_index, length, keys) \
           SELECT $1, $3, $2, $4, $8, 'null'::jsonb FROM run WHERE $8 IS NOT NULL \
           ON CONFLICT (dag_id, task_id, run_id, map_index) DO UPDATE \
              SET length = EXCLUDED.length, keys = EXCLUDED.keys \
         ), stored AS ( \
           INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_result, dag_id, run_id, value, timestamp) \
           SELECT run.id, $3, $4, $5, $7, $1, $2, $6::jsonb, $9 FROM run \
           ON CONFLICT (dag_run_id, task_id, map_index, key) DO UPDATE \
              SET dag_result = EXCLUDED.dag_result, value = EXCLUDED.value, timestamp = EXCLUDED.timestamp \
           RETURNING 1 \
         ) \
         SELECT (SELECT count(*) FROM stored), (SELECT value FROM before)",
    )
    .bind(at.dag_id)
    .bind(at.run_id)
    .bind(at.task_id)
    .bind(at.map_index)
    .bind(at.key)
    .bind(new.value)
    .bind(new.dag_result)
    .bind(new.mapped_length)
    .bind(now)
    .fetch_one(db)
    .await?;
    Ok(if stored == 0 {
        Stored::NoDagRun
    } else {
        Stored::Yes { replaced }
    })
}

/// Removes one XCom; its column, if there was a row.
///
/// # Errors
/// The database's errors.
pub async fn remove(db: &mut PgConnection, at: &Address<'_>) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "DELETE FROM xcom \
          WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = $5 \
         RETURNING coalesce(value::text, 'null')",
    )
    .bind(at.dag_id)
    .bind(at.run_id)
    .bind(at.task_id)
    .bind(at.map_index)
    .bind(at.key)
    .fetch_optional(db)
    .await?)
}

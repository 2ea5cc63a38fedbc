//! A worker takes a callback and says how it ended. Taking comes first and is for good: a callback runs at most once.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::calls;
use crate::Error;

/// A pseudo task: no task may have such an id, so its folder among a run's logs is free.
pub const LOG_OF_RUN: &str = "~callbacks";

/// What came of the wish to run a callback.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    Taken(Claimed),
    /// Another worker has it.
    Elsewhere,
    /// There is no such callback (any more).
    Gone,
}

/// What a worker needs to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// `dag_processor` or `executor`.
    pub kind: String,
    /// Airflow's own request; for a callable with an import path `path`, `kwargs` and `dag_rel_path`.
    pub request: Value,
    /// The task instance whose log gets its output: dag, run, task, map index, try.
    pub log: (String, String, String, i32, i32),
}

/// Takes the callback for the attempt `claim`; the same attempt may ask again.
///
/// # Errors
/// The database's errors.
pub async fn claim(
    db: &mut PgConnection,
    callback_id: Uuid,
    claim: Uuid,
    now: DateTime<Utc>,
) -> Result<Claim, Error> {
    let holder: Option<Uuid> = sqlx::query_scalar(
        "UPDATE modalflow.callback_call SET claim = coalesce(claim, $2), claimed_at = coalesce(claimed_at, $3) \
          WHERE callback_id = $1 RETURNING claim",
    )
    .bind(callback_id)
    .bind(claim)
    .bind(now)
    .fetch_optional(&mut *db)
    .await?;
    match holder {
        Some(holder) if holder == claim => {}
        Some(_) => return Ok(Claim::Elsewhere),
        None => return Ok(Claim::Gone),
    }
    sqlx::query(
        "UPDATE callback SET state = 'running' WHERE id = $1 AND type = 'executor' AND state = 'queued'",
    )
    .bind(callback_id)
    .execute(&mut *db)
    .await?;
    let row: Option<(String, Value, String, String, Option<String>)> = sqlx::query_as(
        "SELECT c.type, c.data, x.dag_id, \
                coalesce((SELECT dr.run_id FROM dag_run dr \
                           WHERE c.type = 'executor' AND dr.id::text = x.run_id AND dr.dag_id = x.dag_id), x.run_id), \
                (SELECT d.relative_fileloc FROM dag d WHERE d.dag_id = x.dag_id) \
           FROM modalflow.callback_call x JOIN callback c ON c.id = x.callback_id WHERE x.callback_id = $1",
    )
    .bind(callback_id)
    .fetch_optional(db)
    .await?;
    let Some((kind, data, dag_id, run_id, file)) = row else {
        return Ok(Claim::Gone);
    };
    let data = plain(data);
    let request = match data.get("req_data").and_then(Value::as_str) {
        Some(request) => serde_json::from_str(request).unwrap_or_default(),
        None => json!({
            "path": data["path"],
            "kwargs": data.get("kwargs").cloned().unwrap_or_else(|| json!({})),
            "dag_rel_path": file,
        }),
    };
    let log = log_of(&request).unwrap_or((dag_id, run_id, LOG_OF_RUN.to_owned(), -1, 1));
    Ok(Claim::Taken(Claimed { kind, request, log }))
}

/// The log of the try that a task's callback is about: its output is found where people look for the try.
fn log_of(request: &Value) -> Option<(String, String, String, i32, i32)> {
    let ti = request.get("ti")?;
    let text = |name: &str| ti[name].as_str().map(str::to_owned);
    let number = |name: &str| i32::try_from(ti[name].as_i64()?).ok();
    Some((
        text("dag_id")?,
        text("run_id")?,
        text("task_id")?,
        number("map_index")?,
        number("try_number")?,
    ))
}

/// Airflow's ExtendedJSON without its wrappers; dates become ISO text, as in a workload that was sent to an executor.
pub(crate) fn plain(value: Value) -> Value {
    match value {
        Value::Object(mut fields) => {
            match (fields.get("__type").and_then(Value::as_str), fields.len()) {
                (Some("datetime"), 2) => {
                    let seconds = fields.get("__var").and_then(Value::as_f64);
                    seconds.and_then(from_seconds).map_or(Value::Null, |date| {
                        json!(date.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
                    })
                }
                (Some(_), 2) => plain(fields.remove("__var").unwrap_or_default()),
                _ => Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name, plain(value)))
                        .collect(),
                ),
            }
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "microseconds of any date fit"
)]
fn from_seconds(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros((seconds * 1e6).round() as i64)
}

/// Notes how the callback ended; `false` when there is none (any more).
///
/// # Errors
/// The database's errors.
pub async fn finish(
    db: &mut PgConnection,
    callback_id: Uuid,
    failure: Option<&str>,
) -> Result<bool, Error> {
    let known: Option<Uuid> = sqlx::query_scalar(
        "SELECT callback_id FROM modalflow.callback_call WHERE callback_id = $1 FOR UPDATE",
    )
    .bind(callback_id)
    .fetch_optional(&mut *db)
    .await?;
    if known.is_none() {
        return Ok(false);
    }
    match failure {
        Some(why) => calls::give_up(db, callback_id, why).await?,
        None => calls::end(db, callback_id, "success", None).await?,
    }
    Ok(true)
}

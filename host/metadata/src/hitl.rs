//! Tasks that wait for a person's answer, and the end of their patience. Answers themselves come through Airflow's
//! api-server, which sends the task on by itself.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::Error;
use crate::deadlines::python_datetime;

/// Sends on what has waited longer than it wanted to: with the answer that just came, with the defaults of the question, or
/// with an event that makes the operator raise. Answers how many.
/// `airflow: SchedulerJobRunner.check_awaiting_input_timeouts`
///
/// # Errors
/// The database's errors.
pub async fn time_out(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, Error> {
    let rows = sqlx::query(
        "SELECT ti.id, ti.next_kwargs, h.ti_id IS NOT NULL AS asked, h.responded_at, h.responded_by, \
                h.chosen_options, h.params_input, h.defaults, h.params \
           FROM task_instance ti LEFT JOIN hitl_detail h ON h.ti_id = ti.id \
          WHERE ti.state = 'awaiting_input' AND ti.trigger_timeout < $1 \
          ORDER BY ti.trigger_timeout, ti.id LIMIT 100 \
            FOR UPDATE OF ti SKIP LOCKED",
    )
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let mut sent_on = 0;
    for row in &rows {
        let id: Uuid = row.try_get("id")?;
        let column = |name: &str| -> Result<Value, Error> {
            Ok(row.try_get::<Option<Value>, _>(name)?.unwrap_or_default())
        };
        let responded_at: Option<DateTime<Utc>> = row.try_get("responded_at")?;
        let defaults = column("defaults")?;
        let event = if let Some(at) = responded_at {
            let answer = [
                column("chosen_options")?,
                column("params_input")?,
                column("responded_by")?,
            ];
            event(answer, at, false)
        } else if row.try_get("asked")? && defaults.is_array() {
            let params = default_params(&column("params")?);
            respond(db, id, &defaults, &params, now).await?;
            event([defaults, params, Value::Null], now, true)
        } else {
            json!({
                "error": "The Human-in-the-loop response timeout has passed without a response.",
                "error_type": "timeout",
            })
        };
        sent_on += resume(db, id, column("next_kwargs")?, event, now).await?;
    }
    Ok(sent_on)
}

/// What `HITLOperator.execute_complete` gets: chosen options, parameters, who answered, when.
/// `airflow: HITLDetail.as_resume_event_payload`
#[must_use]
pub fn event(answer: [Value; 3], at: DateTime<Utc>, timed_out: bool) -> Value {
    let [chosen, params, responded_by] = answer;
    let or = |value: Value, empty: Value| if value.is_null() { empty } else { value };
    json!({
        "chosen_options": or(chosen, json!([])),
        "params_input": or(params, json!({})),
        "responded_at": python_datetime(at),
        "responded_by_user": responded_by,
        "timedout": timed_out,
    })
}

/// The values of the question's form as it was asked.
fn default_params(params: &Value) -> Value {
    let plain: Map<String, Value> = params
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, param)| {
            let value = param.as_object().and_then(|param| param.get("value"));
            (name.clone(), value.unwrap_or(param).clone())
        })
        .collect();
    Value::Object(plain)
}

async fn respond(
    db: &mut PgConnection,
    id: Uuid,
    chosen: &Value,
    params: &Value,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE hitl_detail SET chosen_options = $2::json, params_input = $3::json, responded_by = NULL, \
                responded_at = $4 \
          WHERE ti_id = $1 AND responded_at IS NULL",
    )
    .bind(id)
    .bind(chosen)
    .bind(params)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// `airflow: trigger.handle_event_submit`
async fn resume(
    db: &mut PgConnection,
    id: Uuid,
    next_kwargs: Value,
    event: Value,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let kwargs = match next_kwargs {
        Value::Null => Some(Map::new()),
        // Another encoding than the one that workers of this version write.
        Value::Object(kwargs) if !kwargs.contains_key("__type") => Some(kwargs),
        _ => None,
    };
    let (method, kwargs) = match kwargs {
        Some(mut kwargs) => {
            kwargs.insert("event".to_owned(), event);
            (None, Value::Object(kwargs))
        }
        None => (
            Some("__fail__"),
            json!({"error": "Could not resume the task: its stored next_kwargs could not be decoded"}),
        ),
    };
    let done = sqlx::query(
        "UPDATE task_instance SET state = 'scheduled', scheduled_dttm = $4, updated_at = $4, trigger_id = NULL, \
                next_method = coalesce($2, next_method), next_kwargs = $3 \
          WHERE id = $1 AND state = 'awaiting_input'",
    )
    .bind(id)
    .bind(method)
    .bind(kwargs)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

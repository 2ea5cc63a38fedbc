//! Awaiting input: a person has to answer before the task goes on.

use chrono::{DateTime, Utc};
use metadata::execution::hitl::{self, Answer};
use metadata::execution::state::{self, Parked};
use model::TaskInstanceState;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Outcome;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Fields;
use crate::routes::dag_run::parsed;

/// `airflow: TIAwaitingInputStatePayload`
pub(super) async fn await_input(
    api: &ApiState,
    id: Uuid,
    body: Fields,
    now: DateTime<Utc>,
) -> Result<Outcome, Problem> {
    let mut body = body.taken_as("awaiting_input");
    body.any("state");
    let timeout = body
        .optional_duration("timeout")
        .and_then(|wait| now.checked_add_signed(wait));
    let next_method = body.string("next_method");
    let mut next_kwargs = body.object("next_kwargs");
    // airflow: taken and passed over.
    body.nullable_string("rendered_map_index");
    body.finish()?;

    let mut tx = api.pool.begin().await?;
    let answer = hitl::lock_answer(&mut tx, id).await?;
    let responded = answer.and_then(|answer| answer.responded_at.map(|at| (answer, at)));
    let is_answered = responded.is_some();
    if let Some((answer, at)) = responded {
        // Somebody was faster than the worker: the task goes on at once, with the answer as its event.
        next_kwargs = with_event(&next_kwargs, &answer, at)?;
    }
    let parked = Parked {
        is_answered,
        timeout: if is_answered { None } else { timeout },
        next_method: &next_method,
        next_kwargs: &next_kwargs,
    };
    let before = state::await_input(&mut tx, id, &parked, now).await?;
    let outcome = Outcome::of(before, TaskInstanceState::AwaitingInput)?;
    tx.commit().await?;
    Ok(outcome)
}

/// `airflow: HITLDetail.as_resume_event_payload, serde.serialize`
fn with_event(next_kwargs: &str, answer: &Answer, at: DateTime<Utc>) -> Result<String, Problem> {
    let column = |text: &Option<String>, otherwise: Value| match text.as_deref() {
        None | Some("null") => Ok(otherwise),
        Some(text) => parsed(text),
    };
    let mut kwargs: Map<String, Value> = serde_json::from_str(next_kwargs)
        .map_err(|_| Problem::bug("next_kwargs is no JSON object"))?;
    let answer = [
        column(&answer.chosen_options, json!([]))?,
        column(&answer.params_input, json!({}))?,
        column(&answer.responded_by, Value::Null)?,
    ];
    let event = metadata::hitl::event(answer, at, false);
    kwargs.insert("event".to_owned(), event);
    Ok(Value::Object(kwargs).to_string())
}

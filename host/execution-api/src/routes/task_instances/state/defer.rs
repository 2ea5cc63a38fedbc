//! Deferred: a triggerer waits in the task's place.

use chrono::{DateTime, Utc};
use metadata::execution::state::{self, Deferral};
use model::TaskInstanceState;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Outcome;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Fields;

/// `airflow: TIDeferredStatePayload`
pub(super) async fn defer(
    api: &ApiState,
    id: Uuid,
    body: Fields,
    now: DateTime<Utc>,
) -> Result<Outcome, Problem> {
    let mut body = body.taken_as("deferred");
    body.any("state");
    let classpath = body.string("classpath");
    let trigger_kwargs = trigger_kwargs(&mut body);
    let timeout = body
        .optional_duration("trigger_timeout")
        .and_then(|wait| now.checked_add_signed(wait));
    let queue = body.optional_string("queue");
    let next_method = body.string("next_method");
    let next_kwargs = body.object("next_kwargs");
    // airflow: taken and passed over.
    body.nullable_string("rendered_map_index");
    body.finish()?;

    let deferral = Deferral {
        classpath: &classpath,
        trigger_kwargs: &trigger_kwargs,
        queue: queue.as_deref(),
        timeout,
        next_method: &next_method,
        next_kwargs: &next_kwargs,
    };
    let mut db = api.pool.acquire().await?;
    let before = state::defer(&mut db, id, &deferral, now).await?;
    Outcome::of(before, TaskInstanceState::Deferred)
}

/// An object, kept as JSON; or a text that the worker has encrypted, kept as it is.
fn trigger_kwargs(body: &mut Fields) -> String {
    match body.peek("trigger_kwargs") {
        Some(serde_json::Value::String(encrypted)) => {
            body.any("trigger_kwargs");
            encrypted
        }
        Some(other) if !other.is_object() => {
            let raw = body.any("trigger_kwargs");
            if let Ok(raw) = RawValue::from_string(raw) {
                body.complain::<()>(
                    "dict_type",
                    "trigger_kwargs",
                    "Input should be a valid dictionary or an encrypted string",
                    &raw,
                );
            }
            String::new()
        }
        _ => body.object("trigger_kwargs"),
    }
}

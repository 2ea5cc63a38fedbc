//! Up for retry: the try is archived and the task instance gets a new id.

use chrono::{DateTime, Utc};
use metadata::execution::state::{self, Retry};
use model::TaskInstanceState;
use uuid::Uuid;

use super::Outcome;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Fields;

/// Characters that the column takes.
const LONGEST_REASON: usize = 500;

/// `airflow: TIRetryStatePayload`
pub(super) async fn retry(
    api: &ApiState,
    id: Uuid,
    body: Fields,
    now: DateTime<Utc>,
) -> Result<Outcome, Problem> {
    let mut body = body.taken_as("up_for_retry");
    body.any("state");
    let end_date = body.date("end_date");
    let rendered_map_index = body.nullable_string("rendered_map_index");
    let delay_seconds = body.optional_float("retry_delay_seconds");
    let reason: Option<String> = body
        .optional_string("retry_reason")
        .filter(|reason| !reason.is_empty())
        .map(|reason| reason.chars().take(LONGEST_REASON).collect());
    body.finish()?;

    let retry = Retry {
        end_date,
        rendered_map_index: rendered_map_index.as_ref().map(Option::as_deref),
        delay_seconds,
        reason: reason.as_deref(),
    };
    let mut tx = api.pool.begin().await?;
    let before = state::retry(&mut tx, id, &retry, now).await?;
    if before.is_none() && state::was_retried_at(&mut tx, id, end_date).await? {
        // The first answer was lost; the id has moved on with that very request.
        return Ok(Outcome::AlreadyDone);
    }
    let outcome = Outcome::of(before, TaskInstanceState::UpForRetry)?;
    tx.commit().await?;
    Ok(outcome)
}

//! Up for reschedule: a sensor gives its slot back until its next poke.

use chrono::{DateTime, Utc};
use metadata::execution::state;
use model::TaskInstanceState;
use uuid::Uuid;

use super::Outcome;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Fields;

/// `airflow: TIRescheduleStatePayload`
pub(super) async fn reschedule(
    api: &ApiState,
    id: Uuid,
    body: Fields,
    now: DateTime<Utc>,
) -> Result<Outcome, Problem> {
    let mut body = body.taken_as("up_for_reschedule");
    body.any("state");
    let reschedule_date = body.date("reschedule_date");
    let end_date = body.date("end_date");
    body.finish()?;

    let mut db = api.pool.acquire().await?;
    let before = state::reschedule(&mut db, id, end_date, reschedule_date, now).await?;
    Outcome::of(before, TaskInstanceState::UpForReschedule)
}

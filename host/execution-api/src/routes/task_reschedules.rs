//! `GET task-reschedules/{id}/start_date`: when a sensor first gave back its slot in this try; `null` if it did not.

use axum::Json;
use axum::extract::State;
use metadata::execution::task_instances;
use serde_json::Value;

use crate::problem::Problem;
use crate::request::OwnTask;
use crate::{ApiState, dates};

pub(crate) async fn start_date(
    State(api): State<ApiState>,
    task: OwnTask,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let first = task_instances::first_reschedule(&mut db, task.id).await?;
    Ok(Json(dates::json(first)))
}

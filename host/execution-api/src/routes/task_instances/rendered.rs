//! `PUT task-instances/{id}/rtif` and `PATCH …/rendered-map-index`: what templates became.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use metadata::execution::rendered::{self, Kept};
use serde_json::{Value, json};

use super::not_live;
use crate::problem::Problem;
use crate::request::{Body, Complaints, OwnTask, raw_body};
use crate::{ApiState, redact};

pub(crate) async fn put_fields(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let fields = raw_body(&body)?;
    if !fields.get().starts_with('{') {
        let mut complaints = Complaints::default();
        complaints.add(
            "dict_type",
            json!(["body"]),
            "Input should be a valid dictionary",
            &fields,
        );
        return Err(complaints.into_problem());
    }
    let fields = redact::fields(&fields);

    let mut db = api.pool.acquire().await?;
    match rendered::keep(&mut db, task.id, &fields).await? {
        Kept::NoTaskInstance => return Err(not_live(&mut db, task.id).await),
        Kept::Yes {
            dag_id,
            task_id,
            first_of_run,
        } => {
            let runs = api.limits.runs_with_rendered_fields;
            if first_of_run && runs > 0 {
                rendered::drop_old(&mut db, &dag_id, &task_id, runs).await?;
            }
        }
    }
    let message = json!({"message": "Rendered task instance fields successfully set"});
    Ok((StatusCode::CREATED, Json(message)))
}

pub(crate) async fn name_map_index(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let raw = raw_body(&body)?;
    let Ok(name) = serde_json::from_str::<String>(raw.get()) else {
        let mut complaints = Complaints::default();
        complaints.add(
            "string_type",
            json!(["body"]),
            "Input should be a valid string",
            &raw,
        );
        return Err(complaints.into_problem());
    };
    if name.is_empty() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "rendered_map_index cannot be empty",
        ));
    }
    let mut db = api.pool.acquire().await?;
    if rendered::name_map_index(&mut db, task.id, &name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(
            StatusCode::NOT_FOUND,
            "Task Instance not found",
        ))
    }
}

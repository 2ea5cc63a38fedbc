//! `PATCH task-instances/{id}/skip-downstream`: a branch was not taken.

use axum::extract::State;
use http::StatusCode;
use metadata::execution::state;
use serde::Deserialize;

use crate::problem::Problem;
use crate::request::{Body, Fields, OwnTask};
use crate::{ApiState, clock};

/// A task, or one mapped instance of it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Skipped {
    Task(String),
    Mapped(String, i32),
}

pub(crate) async fn skip_downstream(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let mut body = Fields::of_body(&body)?;
    let tasks: Vec<Skipped> = body.required_list("tasks");
    body.finish()?;
    let (task_ids, map_indexes): (Vec<String>, Vec<i32>) = tasks
        .into_iter()
        .map(|skipped| match skipped {
            Skipped::Task(task_id) => (task_id, -1),
            Skipped::Mapped(task_id, map_index) => (task_id, map_index),
        })
        .unzip();

    let mut db = api.pool.acquire().await?;
    state::skip_downstream(&mut db, task.id, &task_ids, &map_indexes, clock::now())
        .await?
        .map(|_| StatusCode::NO_CONTENT)
        .ok_or_else(Problem::no_task_instance)
}

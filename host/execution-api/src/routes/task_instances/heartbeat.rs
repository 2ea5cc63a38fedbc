//! `PUT task-instances/{id}/heartbeat`: a try is alive. A refusal (404, 409, 410) tells its worker to kill it.

use axum::extract::State;
use http::StatusCode;
use metadata::execution::heartbeat;
use serde_json::json;

use super::not_live;
use crate::problem::Problem;
use crate::request::{Body, Fields, OwnTask};
use crate::{ApiState, clock};

pub(crate) async fn heartbeat(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let mut body = Fields::of_body(&body)?;
    let hostname = body.string("hostname");
    let pid = body.integer("pid");
    body.finish()?;

    let mut db = api.pool.acquire().await?;
    if heartbeat::beat(&mut db, task.id, &hostname, pid, clock::now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let Some(found) = heartbeat::whereabouts(&mut db, task.id).await? else {
        return Err(not_live(&mut db, task.id).await);
    };
    if found.hostname.as_deref() != Some(hostname.as_str()) || found.pid != Some(pid) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            json!({
                "reason": "running_elsewhere",
                "message": "TI is already running elsewhere",
                "current_hostname": found.hostname,
                "current_pid": found.pid,
            }),
        ));
    }
    Err(Problem::new(
        StatusCode::CONFLICT,
        json!({
            "reason": "not_running",
            "message": "TI is no longer in the running state and task should terminate",
            "current_state": found.state,
        }),
    ))
}

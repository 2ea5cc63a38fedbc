//! `callbacks/{id}/run` and `…/state`: a worker of ours takes a callback and says how it ended. Airflow has no such
//! routes: there the dag-processor runs callbacks, with the database at hand.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use metadata::callbacks::claims::{self, Claim};
use serde_json::json;
use uuid::Uuid;

use super::task_instances::run::swap_token;
use crate::problem::Problem;
use crate::request::{Body, Fields, OwnTask, StartingTask};
use crate::tokens::Scope;
use crate::{ApiState, clock};

pub(crate) async fn run(
    State(api): State<ApiState>,
    callback: StartingTask,
    Body(body): Body,
) -> Result<Response, Problem> {
    let mut body = Fields::of_body(&body)?;
    let claim = Uuid::try_parse(&body.string("claim"));
    body.finish()?;
    let claim =
        claim.map_err(|_| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "claim is not a UUID"))?;
    let mut tx = api.pool.begin().await?;
    let claimed = match claims::claim(&mut tx, callback.id, claim, clock::now()).await? {
        Claim::Taken(claimed) => claimed,
        Claim::Elsewhere => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "Another worker has this callback",
            ));
        }
        Claim::Gone => return Err(gone()),
    };
    tx.commit().await?;
    let (dag_id, run_id, task_id, map_index, try_number) = &claimed.log;
    tracing::info!(dag_id, run_id, task_id, kind = claimed.kind, callback_id = %callback.id, "a callback runs");
    let answer = json!({
        "kind": claimed.kind,
        "request": claimed.request,
        "timeout_seconds": api.limits.callback_timeout.as_secs_f64(),
        "log": {
            "dag_id": dag_id,
            "run_id": run_id,
            "task_id": task_id,
            "map_index": map_index,
            "try_number": try_number,
        },
    });
    let mut response = Json(answer).into_response();
    if callback.scope == Scope::Workload {
        swap_token(&api, callback.id, &mut response);
    }
    Ok(response)
}

pub(crate) async fn ended(
    State(api): State<ApiState>,
    callback: OwnTask,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let mut body = Fields::of_body(&body)?;
    let state = body.string("state");
    let output = body.optional_string("output");
    body.finish()?;
    let failure = (state != "success").then(|| output.unwrap_or_else(|| "it failed".to_owned()));
    let mut tx = api.pool.begin().await?;
    let known = claims::finish(&mut tx, callback.id, failure.as_deref()).await?;
    tx.commit().await?;
    if known {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(gone())
    }
}

fn gone() -> Problem {
    Problem::not_found("Callback not found")
}

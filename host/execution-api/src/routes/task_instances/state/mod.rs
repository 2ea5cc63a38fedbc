//! `PATCH task-instances/{id}/state`: a running try ends, waits, or is put back. `state` in the body says which form
//! the rest has; a form a file.
//!
//! A worker repeats a request whose answer it did not get, so each change that is already made is 200.

mod await_input;
mod defer;
mod end;
mod outlets;
mod partitions;
mod reschedule;
mod retry;
mod success;

use axum::extract::State;
use http::StatusCode;
use metadata::execution::state::Before;
use model::TaskInstanceState;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::request::{Body, Complaints, Fields, OwnTask};
use crate::{ApiState, clock};

pub(crate) async fn update(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    use TaskInstanceState as S;
    let body = Fields::of_body(&body)?;
    let state = named_state(&body)?;
    let now = clock::now();
    let outcome = match state {
        S::Success => success::succeed(&api, task.id, body, now).await?,
        S::Failed | S::Skipped | S::Removed | S::UpstreamFailed => {
            end::end(&api, task.id, state, body, now).await?
        }
        S::UpForRetry => retry::retry(&api, task.id, body, now).await?,
        S::Deferred => defer::defer(&api, task.id, body, now).await?,
        S::UpForReschedule => reschedule::reschedule(&api, task.id, body, now).await?,
        S::AwaitingInput => await_input::await_input(&api, task.id, body, now).await?,
        S::Scheduled | S::Queued | S::Running | S::Restarting => {
            return Err(not_reportable(state));
        }
    };
    match outcome {
        Outcome::Changed(before) => {
            tracing::info!(
                dag_id = before.dag_id, run_id = before.run_id, task_id = before.task_id,
                map_index = before.map_index, try_number = before.try_number,
                state = %state, "a try left running"
            );
            (api.wake)();
            Ok(StatusCode::NO_CONTENT)
        }
        Outcome::AlreadyDone => Ok(StatusCode::OK),
    }
}

/// What became of a request.
enum Outcome {
    Changed(Before),
    AlreadyDone,
}

impl Outcome {
    /// What the guarded change found: made, made before, or not allowed.
    fn of(before: Option<Before>, wanted: TaskInstanceState) -> Result<Self, Problem> {
        let before = before.ok_or_else(Problem::no_task_instance)?;
        if before.changed {
            return Ok(Self::Changed(before));
        }
        if before.state.as_deref() == Some(wanted.as_str()) {
            return Ok(Self::AlreadyDone);
        }
        tracing::warn!(
            dag_id = before.dag_id, run_id = before.run_id, task_id = before.task_id,
            map_index = before.map_index, try_number = before.try_number,
            state = before.state, wanted = %wanted, "a change of state was refused"
        );
        Err(Problem::new(
            StatusCode::CONFLICT,
            json!({
                "reason": "invalid_state",
                "message": "TI was not in the running state so it cannot be updated",
                "previous_state": before.state,
            }),
        ))
    }
}

fn named_state(body: &Fields) -> Result<TaskInstanceState, Problem> {
    let named = body.peek("state");
    let known = named
        .as_ref()
        .and_then(Value::as_str)
        .and_then(|name| name.parse().ok());
    known.ok_or_else(|| {
        let mut complaints = Complaints::default();
        let names: Vec<String> = TaskInstanceState::ALL
            .iter()
            .filter(|state| is_reportable(**state))
            .map(|state| format!("'{state}'"))
            .collect();
        match named {
            None => complaints.missing(json!(["body", "state"]), Value::Null),
            Some(named) => complaints.add(
                "enum",
                json!(["body", "state"]),
                &format!("Input should be one of {}", names.join(", ")),
                named,
            ),
        }
        complaints.into_problem()
    })
}

fn is_reportable(state: TaskInstanceState) -> bool {
    use TaskInstanceState as S;
    match state {
        S::Scheduled | S::Queued | S::Running | S::Restarting => false,
        S::Success
        | S::Failed
        | S::Skipped
        | S::Removed
        | S::UpstreamFailed
        | S::UpForRetry
        | S::UpForReschedule
        | S::Deferred
        | S::AwaitingInput => true,
    }
}

/// States that only a scheduler gives.
fn not_reportable(state: TaskInstanceState) -> Problem {
    let mut complaints = Complaints::default();
    complaints.add(
        "enum",
        json!(["body", "state"]),
        "a worker can't put its task instance into this state",
        state.as_str(),
    );
    complaints.into_problem()
}

//! `PATCH task-instances/{id}/run`: a worker is about to run a try.
//!
//! The start fence: a platform may hand one input to two containers, with equal hostnames and pids. So a second
//! start is taken for a repeat of the first only if it is the same request, down to its `start_date`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderValue, StatusCode};
use metadata::execution::dag_runs;
use metadata::execution::start::{self, Start, Starter};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::problem::Problem;
use crate::request::{Body, Fields, StartingTask};
use crate::routes::dag_run::{DagRunAnswer, raw};
use crate::tokens::Scope;
use crate::version::Version;
use crate::{ApiState, clock, dates, gate};

pub(crate) async fn run(
    State(api): State<ApiState>,
    Extension(version): Extension<Version>,
    task: StartingTask,
    Body(body): Body,
) -> Result<Response, Problem> {
    let request = StartRequest::read(Fields::of_body(&body)?)?;
    let starter = request.starter();
    let mut db = api.pool.acquire().await?;
    let start = start::start_task_instance(&mut db, task.id, &starter, clock::now())
        .await?
        .ok_or_else(Problem::no_task_instance)?;
    if !start.started && !is_repeat(&mut db, &start, &starter).await? {
        tracing::warn!(
            dag_id = start.dag_id,
            run_id = start.run_id,
            task_id = start.task_id,
            map_index = start.map_index,
            try_number = start.try_number,
            state = start.state,
            "a start was refused"
        );
        return Err(Problem::new(
            StatusCode::CONFLICT,
            json!({
                "reason": "invalid_state",
                "message": "TI was not in a state where it could be marked as running",
                "previous_state": start.state,
            }),
        ));
    }
    let consumed = if start.has_consumed_asset_events {
        dag_runs::consumed_asset_events(&mut db, &start.dag_id, &start.run_id).await?
    } else {
        Vec::new()
    };
    drop(db);
    tracing::info!(
        dag_id = start.dag_id,
        run_id = start.run_id,
        task_id = start.task_id,
        map_index = start.map_index,
        try_number = start.try_number,
        hostname = starter.hostname,
        repeated = !start.started,
        "a try runs"
    );

    let answer = context(start, &consumed, version)?;
    let mut response = Json(answer).into_response();
    if task.scope == Scope::Workload {
        swap_token(&api, task.id, &mut response);
    }
    Ok(response)
}

/// The request that started the try once more: its answer was lost.
async fn is_repeat(
    db: &mut PgConnection,
    start: &Start,
    starter: &Starter<'_>,
) -> Result<bool, Problem> {
    let same_process = start.state.as_deref() == Some("running")
        && start.hostname.as_deref() == Some(starter.hostname)
        && start.unixname.as_deref() == Some(starter.unixname)
        && start.pid == Some(starter.pid);
    if !same_process {
        return Ok(false);
    }
    if start.resumed {
        return Ok(start::is_last_resumption(db, start, starter).await?);
    }
    Ok(start.start_date == Some(starter.start_date))
}

/// The workload's token has done its work: an execution token takes its place.
pub(crate) fn swap_token(api: &ApiState, id: Uuid, response: &mut Response) {
    if let Ok(token) = HeaderValue::from_str(&api.tokens.execution(id)) {
        response.headers_mut().insert(gate::REFRESHED_TOKEN, token);
    }
}

/// `airflow: TIEnterRunningPayload`
struct StartRequest {
    hostname: String,
    unixname: String,
    pid: i32,
    start_date: chrono::DateTime<chrono::Utc>,
}

impl StartRequest {
    fn read(mut body: Fields) -> Result<Self, Problem> {
        let state = body.any("state");
        let request = Self {
            hostname: body.string("hostname"),
            unixname: body.string("unixname"),
            pid: body.integer("pid"),
            start_date: body.date("start_date"),
        };
        if !state.is_empty() && state != "\"running\"" {
            let input = raw(state)?;
            body.complain::<()>(
                "literal_error",
                "state",
                "Input should be <TaskInstanceState.RUNNING: 'running'>",
                &input,
            );
        }
        body.finish()?;
        Ok(request)
    }

    fn starter(&self) -> Starter<'_> {
        Starter {
            hostname: &self.hostname,
            unixname: &self.unixname,
            pid: self.pid,
            start_date: self.start_date,
        }
    }
}

/// `airflow: TIRunContext`
#[derive(Serialize)]
struct Context {
    dag_run: DagRunAnswer,
    task_reschedule_count: i64,
    max_tries: i32,
    variables: [(); 0],
    connections: [(); 0],
    xcom_keys_to_clear: Vec<String>,
    should_retry: bool,
    #[serde(flatten)]
    resumed: Option<Resumed>,
}

/// Sent only when the task goes on after a deferral.
#[derive(Serialize)]
struct Resumed {
    next_method: String,
    next_kwargs: Option<Box<RawValue>>,
    start_date: Value,
}

fn context(
    start: Start,
    consumed: &[dag_runs::ConsumedEvent],
    version: Version,
) -> Result<Context, Problem> {
    let resumed = match start.next_method.filter(|method| !method.is_empty()) {
        None => None,
        Some(next_method) => Some(Resumed {
            next_method,
            next_kwargs: start.next_kwargs.map(raw).transpose()?,
            start_date: dates::json(start.start_date),
        }),
    };
    Ok(Context {
        dag_run: DagRunAnswer::new(start.dag_run, consumed, version)?,
        task_reschedule_count: start.task_reschedule_count,
        max_tries: start.max_tries,
        variables: [],
        connections: [],
        xcom_keys_to_clear: start.xcom_keys,
        // airflow: _is_eligible_to_retry
        should_retry: start.state.as_deref() == Some("restarting")
            || (start.max_tries != 0 && start.try_number <= start.max_tries),
        resumed,
    })
}

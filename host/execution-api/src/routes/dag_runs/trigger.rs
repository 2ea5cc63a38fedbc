//! `POST dag-runs/{dag_id}/{run_id}`: a task triggers a run of another DAG.

use axum::extract::{Path, State};
use chrono::{DateTime, TimeDelta, Utc};
use http::StatusCode;
use metadata::dag_runs::{self as runs, Inserted, Origin};
use metadata::execution::dag_runs::{self, Triggered};
use model::{DagRunTriggeredBy, DagRunType};
use scheduler::Error;
use scheduler::runs::{ManualRun, custom_timetable, manual};
use serde_json::Value;

use super::sound_dag;
use crate::problem::Problem;
use crate::request::{Body, Caller, Fields};
use crate::{ApiState, clock};

/// A worker repeats a request at most this long after the first.
const REPEAT_WINDOW: TimeDelta = TimeDelta::minutes(10);

pub(crate) async fn trigger(
    State(api): State<ApiState>,
    caller: Caller,
    Path((dag_id, run_id)): Path<(String, String)>,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let request = TriggerRequest::read(Fields::of_body(&body)?)?;
    let now = clock::now();
    let mut tx = api.pool.begin().await?;
    let dag = sound_dag(&mut tx, &dag_id).await?;
    if !allows_operators(dag.allowed_run_types.as_deref()) {
        return Err(refused(
            "denied_run_type",
            format!("Dag with dag_id '{dag_id}' does not allow operator-triggered runs"),
        ));
    }
    let stored = api
        .dags
        .latest_of(&mut tx, &dag_id)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Dag id {dag_id} not found")))?;
    let triggering_user_name = dag_runs::triggering_user_of(&mut tx, caller.ti_id).await?;
    let data_interval = match request.logical_date {
        Some(_) if custom_timetable(&stored.dag.timetable).is_some() => {
            let run_after = request.run_after.unwrap_or(now);
            // Python is asked while no row is locked.
            tx.commit().await?;
            let inferred = api
                .timetables
                .infer(
                    &stored.dag,
                    DagRunType::OperatorTriggered.as_str(),
                    run_after,
                )
                .await
                .map_err(|problem| refused("value_error", problem))?;
            tx = api.pool.begin().await?;
            inferred
        }
        Some(_) | None => None,
    };
    let wanted = ManualRun {
        run_id: Some(run_id.clone()),
        logical_date: request.logical_date,
        data_interval,
        run_after: request.run_after,
        conf: request.conf.clone(),
        run_type: DagRunType::OperatorTriggered,
        triggered_by: DagRunTriggeredBy::Operator,
        triggering_user_name,
        partition_key: request.partition_key.clone(),
    };
    // Its id is given: nothing is drawn.
    let run = manual(&stored.dag, wanted, "", now).map_err(|error| match error {
        Error::NotPartitioned { .. } => refused("not_partitioned", error.to_string()),
        Error::PartitionKey { problem, .. } => refused("invalid_partition_key", problem),
        error => refused("value_error", error.to_string()),
    })?;

    let origin = Origin {
        dag_version_id: stored.dag_version_id,
        creating_job_id: None,
    };
    let triggered = Triggered {
        dag_id: &dag_id,
        run_id: &run_id,
        note: request.note.as_deref(),
    };
    match runs::insert(&mut tx, &run, &origin, now).await? {
        Inserted::New(dag_run_id) => {
            dag_runs::note_trigger(&mut tx, caller.ti_id, triggered, dag_run_id, now).await?;
            tx.commit().await?;
            tracing::info!(dag_id, run_id, "a task triggered a run");
            (api.wake)();
            Ok(StatusCode::NO_CONTENT)
        }
        Inserted::Exists => {
            let since = now - REPEAT_WINDOW;
            let is_repeat = dag_runs::was_triggered_by(
                &mut tx,
                caller.ti_id,
                triggered,
                &run.conf,
                request.logical_date,
                since,
            )
            .await?;
            if is_repeat {
                return Ok(StatusCode::NO_CONTENT);
            }
            Err(Problem::because(
                StatusCode::CONFLICT,
                "already_exists",
                format!("A run already exists for Dag '{dag_id}' with run_id '{run_id}'"),
            ))
        }
    }
}

/// `airflow: TriggerDAGRunPayload`
struct TriggerRequest {
    logical_date: Option<DateTime<Utc>>,
    run_after: Option<DateTime<Utc>>,
    conf: Value,
    partition_key: Option<String>,
    note: Option<String>,
}

impl TriggerRequest {
    fn read(mut body: Fields) -> Result<Self, Problem> {
        let request = Self {
            logical_date: body.optional_date("logical_date"),
            run_after: body.optional_date("run_after"),
            conf: serde_json::from_str(&body.object("conf")).unwrap_or_default(),
            partition_key: body.optional_string("partition_key"),
            note: body.optional_string("note"),
        };
        // The worker asks for the clearing itself, after it was told that the run exists.
        body.flag("reset_dag_run", false);
        body.finish()?;
        Ok(request)
    }
}

/// `allowed_run_types` is a JSON list of types; none, or null, allows all.
fn allows_operators(allowed: Option<&str>) -> bool {
    match allowed.map(serde_json::from_str::<Option<Vec<String>>>) {
        Some(Ok(Some(types))) => types
            .iter()
            .any(|name| name == DagRunType::OperatorTriggered.as_str()),
        None | Some(Ok(None) | Err(_)) => true,
    }
}

fn refused(reason: &str, message: impl AsRef<str>) -> Problem {
    Problem::because(StatusCode::BAD_REQUEST, reason, message)
}

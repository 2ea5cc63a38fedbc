//! `asset-events/by-asset`, `by-asset-alias`.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use metadata::execution::asset_events::{self, CreatedRun, EventRow, Of, Range};
use serde_json::{Value, json};

use super::dag_run::parsed;
use crate::problem::Problem;
use crate::request::{Caller, Params};
use crate::{ApiState, dates};

pub(crate) async fn by_asset(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    // Both must be there, either may be empty; that is how workers ask.
    let name = params.required("name");
    let uri = params.required("uri");
    let range = range(&mut params);
    params.check()?;
    let given = |text: &'_ str| -> Option<String> { (!text.is_empty()).then(|| text.to_owned()) };
    let (name, uri) = (given(&name), given(&uri));
    if name.is_none() && uri.is_none() {
        return Err(Problem::because(
            StatusCode::BAD_REQUEST,
            "Missing parameter",
            "name and uri cannot both be None",
        ));
    }
    events(
        &api,
        &Of::Asset {
            name: name.as_deref(),
            uri: uri.as_deref(),
        },
        &range,
    )
    .await
}

pub(crate) async fn by_alias(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let name = params.required("name");
    let range = range(&mut params);
    params.check()?;
    events(&api, &Of::Alias { name: &name }, &range).await
}

fn range(params: &mut Params) -> Range {
    Range {
        after: params.date("after"),
        before: params.date("before"),
        ascending: params.flag("ascending", true),
        // airflow: no limit and a limit of 0 are the same.
        limit: params.integer("limit").filter(|limit| *limit > 0),
    }
}

async fn events(api: &ApiState, of: &Of<'_>, range: &Range) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let events = asset_events::find(&mut db, of, range).await?;
    let ids: Vec<i32> = events.iter().map(|event| event.id).collect();
    let runs = asset_events::created_runs(&mut db, &ids).await?;
    let events: Vec<Value> = events
        .iter()
        .map(|event| answer(event, &runs))
        .collect::<Result<_, _>>()?;
    Ok(Json(json!({"asset_events": events})))
}

fn answer(event: &EventRow, runs: &[CreatedRun]) -> Result<Value, Problem> {
    let created: Vec<Value> = runs
        .iter()
        .filter(|run| run.event_id == event.id)
        .map(created_run)
        .collect();
    Ok(json!({
        "id": event.id,
        "timestamp": dates::text(event.timestamp),
        "extra": parsed(&event.extra)?,
        "asset": {
            "name": event.name,
            "uri": event.uri,
            "group": event.group,
            "extra": parsed(&event.asset_extra)?,
        },
        "created_dagruns": created,
        "source_task_id": event.source_task_id,
        "source_dag_id": event.source_dag_id,
        "source_run_id": event.source_run_id,
        "source_map_index": event.source_map_index,
        "partition_key": event.partition_key,
    }))
}

fn created_run(run: &CreatedRun) -> Value {
    json!({
        "run_id": run.run_id,
        "dag_id": run.dag_id,
        "logical_date": dates::json(run.logical_date),
        // The worker's model wants a date; a run that is still queued has none. Airflow answers 500 then.
        "start_date": dates::json(Some(run.start_date.unwrap_or(run.run_after))),
        "end_date": dates::json(run.end_date),
        "state": run.state,
        "data_interval_start": dates::json(run.data_interval_start),
        "data_interval_end": dates::json(run.data_interval_end),
        "partition_key": run.partition_key,
    })
}

//! `previous-successful-dagrun` and `validate-inlets-and-outlets`: what a try asks before and while it runs.

use axum::Json;
use axum::extract::State;
use metadata::execution::{dag_runs, dags};
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::request::OwnTask;
use crate::{ApiState, dates};

pub(crate) async fn previous_successful_dagrun(
    State(api): State<ApiState>,
    task: OwnTask,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let run = dag_runs::previous_successful_of(&mut db, task.id).await?;
    let date = |pick: fn(&dag_runs::DagRunRow) -> Option<chrono::DateTime<chrono::Utc>>| {
        dates::json(run.as_ref().and_then(pick))
    };
    Ok(Json(json!({
        "data_interval_start": date(|run| run.data_interval_start),
        "data_interval_end": date(|run| run.data_interval_end),
        "start_date": date(|run| run.start_date),
        "end_date": date(|run| run.end_date),
    })))
}

pub(crate) async fn validate_inlets_and_outlets(
    State(api): State<ApiState>,
    task: OwnTask,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let stored = dags::stored_task_of(&mut db, task.id)
        .await?
        .ok_or_else(Problem::no_task_instance)?;
    let (names, uris): (Vec<String>, Vec<String>) = assets(&stored).unzip();
    let inactive: Vec<Value> = dags::inactive(&mut db, &names, &uris)
        .await?
        .into_iter()
        .map(|asset| json!({"name": asset.name, "uri": asset.uri, "type": "Asset"}))
        .collect();
    Ok(Json(json!({"inactive_assets": inactive})))
}

/// Name and URI of the assets among a serialized task's inlets and outlets; those of a mapped one are in its partial.
fn assets(task: &Value) -> impl Iterator<Item = (String, String)> {
    ["inlets", "outlets"]
        .into_iter()
        .flat_map(|side| [&task[side], &task["partial_kwargs"][side]])
        .filter_map(Value::as_array)
        .flatten()
        .filter(|item| item["__type"] == "asset")
        .filter_map(|item| {
            let text = |name: &str| item["__var"][name].as_str().map(str::to_owned);
            Some((text("name")?, text("uri")?))
        })
}

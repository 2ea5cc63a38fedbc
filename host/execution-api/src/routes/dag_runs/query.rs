//! `GET dag-runs/{dag_id}/{run_id}`, `…/state`, `count`, `previous`.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use metadata::execution::dag_runs;
use model::DagRunState;
use serde_json::{Value, json};

use crate::ApiState;
use crate::problem::Problem;
use crate::request::{Caller, Params};
use crate::routes::dag_run::DagRunAnswer;
use crate::version::Version;

pub(crate) async fn get(
    State(api): State<ApiState>,
    Extension(version): Extension<Version>,
    _: Caller,
    Path((dag_id, run_id)): Path<(String, String)>,
) -> Result<Json<DagRunAnswer>, Problem> {
    let mut db = api.pool.acquire().await?;
    let run = dag_runs::find(&mut db, &dag_id, &run_id)
        .await?
        .ok_or_else(|| no_run(&dag_id, &run_id))?;
    // airflow: only the start of a try tells what asset events triggered its run.
    DagRunAnswer::new(run, &[], version).map(Json)
}

pub(crate) async fn state(
    State(api): State<ApiState>,
    _: Caller,
    Path((dag_id, run_id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let state = dag_runs::state(&mut db, &dag_id, &run_id)
        .await?
        .ok_or_else(|| no_run(&dag_id, &run_id))?;
    Ok(Json(json!({"state": state})))
}

pub(crate) async fn count(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<i64>, Problem> {
    let dag_id = params.required("dag_id");
    let logical_dates = params.dates("logical_dates");
    let run_ids = params.all("run_ids");
    let states = params.all("states");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    Ok(Json(
        dag_runs::count(&mut db, &dag_id, &logical_dates, &run_ids, &states).await?,
    ))
}

pub(crate) async fn previous(
    State(api): State<ApiState>,
    Extension(version): Extension<Version>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Option<DagRunAnswer>>, Problem> {
    let dag_id = params.required("dag_id");
    let logical_date = params.required_date("logical_date");
    let state: Option<DagRunState> = params.named("state");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let state = state.map(DagRunState::as_str);
    let run = dag_runs::previous(&mut db, &dag_id, logical_date, state).await?;
    run.map(|run| DagRunAnswer::new(run, &[], version))
        .transpose()
        .map(Json)
}

fn no_run(dag_id: &str, run_id: &str) -> Problem {
    Problem::not_found(format!(
        "Dag run with dag_id '{dag_id}' and run_id '{run_id}' was not found"
    ))
}

//! `POST dag-runs/{dag_id}/{run_id}/clear`: a task wants an existing run once more.

use axum::extract::{Path, State};
use http::StatusCode;
use metadata::execution::clear::{self, Retries};

use super::sound_dag;
use crate::problem::Problem;
use crate::request::Caller;
use crate::{ApiState, clock};

pub(crate) async fn clear(
    State(api): State<ApiState>,
    _: Caller,
    Path((dag_id, run_id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut tx = api.pool.begin().await?;
    sound_dag(&mut tx, &dag_id).await?;
    let stored = api.dags.latest_of(&mut tx, &dag_id).await?;
    let retries: Vec<Retries> = stored
        .iter()
        .flat_map(|stored| stored.dag.tasks.iter())
        .map(|task| Retries {
            task_id: task.task_id.clone(),
            retries: task.retries,
        })
        .collect();
    if !clear::clear_run(&mut tx, &dag_id, &run_id, &retries, clock::now()).await? {
        return Err(Problem::not_found(format!(
            "Dag run with run_id: '{run_id}' not found"
        )));
    }
    tx.commit().await?;
    tracing::info!(dag_id, run_id, "a task cleared a run");
    (api.wake)();
    Ok(StatusCode::NO_CONTENT)
}

//! `GET dags/{dag_id}`.

use axum::Json;
use axum::extract::{Path, State};
use metadata::execution::dags;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::request::Caller;
use crate::{ApiState, dates};

pub(crate) async fn get(
    State(api): State<ApiState>,
    _: Caller,
    Path(dag_id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let dag = dags::find(&mut db, &dag_id).await?.ok_or_else(|| {
        Problem::not_found(format!("The Dag with dag_id: `{dag_id}` was not found"))
    })?;
    Ok(Json(json!({
        "dag_id": dag.dag_id,
        "is_paused": dag.is_paused,
        "bundle_name": dag.bundle_name,
        "bundle_version": dag.bundle_version,
        "relative_fileloc": dag.relative_fileloc,
        "owners": dag.owners,
        "tags": dag.tags,
        "next_dagrun": dates::json(dag.next_dagrun),
    })))
}

//! `dag-runs/…`: reading runs, triggering and clearing them.

pub(crate) mod clear;
pub(crate) mod query;
pub(crate) mod trigger;

use http::StatusCode;
use metadata::execution::dag_runs::{self, Triggerable};
use sqlx::PgConnection;

use crate::problem::Problem;

/// The DAG, if it is there and its file is sound.
async fn sound_dag(db: &mut PgConnection, dag_id: &str) -> Result<Triggerable, Problem> {
    let dag = dag_runs::triggerable(db, dag_id)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Dag with dag_id: '{dag_id}' not found")))?;
    if dag.has_import_errors {
        return Err(Problem::because(
            StatusCode::BAD_REQUEST,
            "import_errors",
            format!("Dag with dag_id '{dag_id}' has import errors and cannot be triggered"),
        ));
    }
    Ok(dag)
}

//! `task-instances/…`: the life of a try, and questions about others.

pub(crate) mod context;
pub(crate) mod heartbeat;
pub(crate) mod query;
pub(crate) mod rendered;
pub(crate) mod run;
pub(crate) mod skip_downstream;
pub(crate) mod state;

use http::StatusCode;
use metadata::execution;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::problem::Problem;

/// Why there is no task instance with this id: 410 when it was retried or cleared, 404 when it never was.
/// `airflow: _raise_ti_not_in_live_table`
async fn not_live(db: &mut PgConnection, id: Uuid) -> Problem {
    match execution::heartbeat::is_superseded(db, id).await {
        Ok(true) => Problem::because(
            StatusCode::GONE,
            "not_found",
            "Task Instance not found, it may have been moved to the Task Instance History table",
        ),
        Ok(false) => Problem::no_task_instance(),
        Err(error) => error.into(),
    }
}

//! Failed, skipped, removed, upstream_failed.

use chrono::{DateTime, Utc};
use metadata::execution::fail_fast;
use metadata::execution::state::{self, End};
use model::{TaskInstanceKey, TaskInstanceState};
use uuid::Uuid;

use super::Outcome;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Fields;

/// `airflow: TITerminalStatePayload`
pub(super) async fn end(
    api: &ApiState,
    id: Uuid,
    to: TaskInstanceState,
    body: Fields,
    now: DateTime<Utc>,
) -> Result<Outcome, Problem> {
    let mut body = body.taken_as("_terminal_");
    body.any("state");
    let end_date = body.date("end_date");
    let rendered_map_index = body.nullable_string("rendered_map_index");
    body.finish()?;

    let end = End {
        state: to,
        end_date,
        rendered_map_index: rendered_map_index.as_ref().map(Option::as_deref),
    };
    let mut tx = api.pool.begin().await?;
    let outcome = Outcome::of(state::end(&mut tx, id, &end, now).await?, to)?;
    if let Outcome::Changed(before) = &outcome
        && to == TaskInstanceState::Failed
        && before.fail_fast
    {
        let failed = TaskInstanceKey {
            dag_id: before.dag_id.clone(),
            run_id: before.run_id.clone(),
            task_id: before.task_id.clone(),
            map_index: before.map_index,
        };
        fail_fast(&mut tx, &failed, now).await?;
    }
    tx.commit().await?;
    Ok(outcome)
}

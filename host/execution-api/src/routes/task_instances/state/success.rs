//! Success, with what the task did to assets.

use chrono::{DateTime, Utc};
use metadata::execution::state::{self, Before, End};
use metadata::execution::task_instances::Place;
use metadata::execution::{asset_changes, stores};
use model::{TaskInstanceKey, TaskInstanceState};
use uuid::Uuid;

use super::Outcome;
use super::{outlets, partitions};
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Fields;

/// `airflow: TISuccessStatePayload`
pub(super) async fn succeed(
    api: &ApiState,
    id: Uuid,
    body: Fields,
    now: DateTime<Utc>,
) -> Result<Outcome, Problem> {
    let mut body = body.taken_as("success");
    body.any("state");
    let end_date = body.date("end_date");
    let outlets = outlets::outlets(&mut body);
    let emitted = outlets::events(&mut body);
    let rendered_map_index = body.nullable_string("rendered_map_index");
    body.finish()?;

    let end = End {
        state: TaskInstanceState::Success,
        end_date,
        rendered_map_index: rendered_map_index.as_ref().map(Option::as_deref),
    };
    if outlets.is_empty() && !api.limits.clear_task_store_on_success {
        // The common case: one statement, which is its own transaction.
        let mut db = api.pool.acquire().await?;
        return Outcome::of(state::end(&mut db, id, &end, now).await?, end.state);
    }
    let mut tx = api.pool.begin().await?;
    let outcome = Outcome::of(state::end(&mut tx, id, &end, now).await?, end.state)?;
    if let Outcome::Changed(before) = &outcome {
        outlets::check_partition_keys(&emitted)?;
        let source = key(before);
        let heard = asset_changes::register(&mut tx, &source, &outlets, &emitted, now).await?;
        partitions::queue(api, &mut tx, &source, &heard, now).await?;
        if api.limits.clear_task_store_on_success {
            stores::remove_task_values(&mut tx, &place(before), None).await?;
        }
    }
    tx.commit().await?;
    Ok(outcome)
}

fn key(before: &Before) -> TaskInstanceKey {
    TaskInstanceKey {
        dag_id: before.dag_id.clone(),
        run_id: before.run_id.clone(),
        task_id: before.task_id.clone(),
        map_index: before.map_index,
    }
}

fn place(before: &Before) -> Place {
    Place {
        dag_id: before.dag_id.clone(),
        run_id: before.run_id.clone(),
        task_id: before.task_id.clone(),
        map_index: before.map_index,
    }
}

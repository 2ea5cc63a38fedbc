//! Archiving a try: its row is copied to `task_instance_history`, and the task instance gets a new uuid, so that
//! whoever still holds the old one can change nothing. `airflow: TaskInstance.prepare_db_for_next_try`

use model::DagRun;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// Copies the tries to the history (an unfinished state is stored as failed), forgets their reschedules, and gives
/// the task instances new ids. Answers (old id, new id).
///
/// # Errors
/// The database's errors.
pub async fn archive(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, Uuid)>, Error> {
    sqlx::query(
        "INSERT INTO task_instance_history (task_instance_id, task_id, dag_id, run_id, map_index, try_number, \
                start_date, end_date, duration, state, max_tries, hostname, unixname, pool, pool_slots, queue, \
                priority_weight, operator, custom_operator_name, queued_dttm, scheduled_dttm, queued_by_job_id, \
                pid, executor, executor_config, updated_at, rendered_map_index, context_carrier, span_status, \
                external_executor_id, trigger_id, trigger_timeout, next_method, next_kwargs, \
                task_display_name, dag_version_id, retry_delay_override, retry_reason) \
         SELECT id, task_id, dag_id, run_id, map_index, try_number, start_date, end_date, duration, \
                CASE WHEN state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed') \
                     THEN state ELSE 'failed' END, \
                max_tries, hostname, unixname, pool, pool_slots, queue, priority_weight, operator, \
                custom_operator_name, queued_dttm, scheduled_dttm, queued_by_job_id, pid, executor, \
                executor_config, updated_at, \
                coalesce(rendered_map_index, CASE WHEN map_index >= 0 THEN map_index::text END), \
                context_carrier, span_status, \
                external_executor_id, trigger_id, trigger_timeout, next_method, next_kwargs, \
                coalesce(task_display_name, task_id), dag_version_id, retry_delay_override, retry_reason \
           FROM task_instance WHERE id = ANY($1) \
         ON CONFLICT (dag_id, task_id, run_id, map_index, try_number) DO NOTHING",
    )
    .bind(ids)
    .execute(&mut *db)
    .await?;
    // A question to a person stays with the try that asked it; hitl_detail itself follows the new id.
    sqlx::query(
        "INSERT INTO hitl_detail_history (ti_history_id, options, subject, body, defaults, multiple, params, \
                assignees, created_at, responded_at, responded_by, chosen_options, params_input) \
         SELECT h.ti_id, h.options, h.subject, h.body, h.defaults, h.multiple, h.params, \
                h.assignees, h.created_at, h.responded_at, h.responded_by, h.chosen_options, h.params_input \
           FROM hitl_detail h JOIN task_instance_history t ON t.task_instance_id = h.ti_id \
          WHERE h.ti_id = ANY($1) \
         ON CONFLICT (ti_history_id) DO NOTHING",
    )
    .bind(ids)
    .execute(&mut *db)
    .await?;
    // task_reschedule has no ON UPDATE CASCADE: its rows must go before the id changes.
    sqlx::query("DELETE FROM task_reschedule WHERE ti_id = ANY($1)")
        .bind(ids)
        .execute(&mut *db)
        .await?;
    let renamed: Vec<(Uuid, Uuid)> = ids.iter().map(|old| (*old, Uuid::now_v7())).collect();
    let new: Vec<Uuid> = renamed.iter().map(|(_, new)| *new).collect();
    sqlx::query(
        "UPDATE task_instance ti SET id = n.new FROM unnest($1::uuid[], $2::uuid[]) AS n (old, new) \
          WHERE ti.id = n.old",
    )
    .bind(ids)
    .bind(&new)
    .execute(db)
    .await?;
    Ok(renamed)
}

/// Whether an ended try of the run is of this version of its DAG.
///
/// # Errors
/// The database's errors.
pub(crate) async fn has_version(
    db: &mut PgConnection,
    run: &DagRun,
    version: Uuid,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM task_instance_history \
                         WHERE dag_id = $1 AND run_id = $2 AND dag_version_id = $3)",
    )
    .bind(&run.dag_id)
    .bind(&run.run_id)
    .bind(version)
    .fetch_one(db)
    .await?)
}

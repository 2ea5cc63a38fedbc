//! A DAG with `fail_fast` ends when one of its tasks fails.

use chrono::{DateTime, Utc};
use model::TaskInstanceKey;
use sqlx::PgConnection;

use crate::Error;
use crate::serialized::SerializedDags;

/// Ends all task instances of the run that are neither of the failed task, nor teardowns, nor success or failed:
/// running ones fail, others are skipped, each with Airflow's log row. Answers how many.
/// `airflow: taskinstance._stop_remaining_tasks`
///
/// # Errors
/// The database's errors, and [`Error::SerializedDag`] when the DAG's stored form can't be read.
pub async fn fail_fast(
    db: &mut PgConnection,
    failed: &TaskInstanceKey,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    // Read afresh: this happens once in the life of a run, and only for the few DAGs that ask for it.
    let stored = SerializedDags::default()
        .latest_of(&mut *db, &failed.dag_id)
        .await?;
    let spared: Vec<String> = stored
        .iter()
        .flat_map(|stored| stored.dag.tasks.iter())
        .filter(|task| task.is_teardown)
        .map(|task| task.task_id.clone())
        .chain([failed.task_id.clone()])
        .collect();
    // airflow: TaskInstance.error sets the state alone; TaskInstance.set_state fills in dates that are missing.
    let ended = sqlx::query(
        "WITH remaining AS ( \
           SELECT id, state FROM task_instance \
            WHERE dag_id = $1 AND run_id = $2 AND task_id <> ALL($3) \
              AND (state IS NULL OR state NOT IN ('success', 'failed', 'skipped')) \
              FOR UPDATE \
         ), ended AS ( \
           UPDATE task_instance t \
              SET state = CASE WHEN r.state = 'running' THEN 'failed' ELSE 'skipped' END, \
                  start_date = CASE WHEN r.state = 'running' THEN t.start_date ELSE coalesce(t.start_date, $4) END, \
                  end_date = CASE WHEN r.state = 'running' THEN t.end_date ELSE coalesce(t.end_date, $4) END, \
                  duration = CASE WHEN r.state = 'running' THEN t.duration \
                                  ELSE extract(epoch FROM coalesce(t.end_date, $4) - coalesce(t.start_date, $4)) END, \
                  updated_at = $4 \
             FROM remaining r \
            WHERE t.id = r.id \
           RETURNING t.dag_id, t.task_id, t.run_id, t.map_index, t.try_number, t.state \
         ) \
         INSERT INTO log (dttm, dag_id, task_id, map_index, event, run_id, extra, try_number) \
         SELECT $4, dag_id, task_id, map_index, \
                CASE WHEN state = 'failed' THEN 'fail task' ELSE 'skip task' END, run_id, \
                CASE WHEN state = 'failed' \
                     THEN 'Forcing task to fail due to dag''s `fail_fast` setting.' \
                     ELSE 'Skipping task due to dag''s `fail_fast` setting.' END, \
                try_number \
           FROM ended",
    )
    .bind(&failed.dag_id)
    .bind(&failed.run_id)
    .bind(&spared)
    .bind(now)
    .execute(db)
    .await?;
    Ok(ended.rows_affected())
}

//! Rendered template fields and map index names.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// What became of rendered fields that were handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// There is no task instance with this id.
    NoTaskInstance,
    /// `first_of_run`: the first ones of this task in its run, so that older runs' may be dropped now.
    Yes {
        dag_id: String,
        task_id: String,
        first_of_run: bool,
    },
}

/// Keeps `fields` (a JSON object as text) for the task instance.
/// `airflow: RenderedTaskInstanceFields.write`
///
/// # Errors
/// The database's errors.
pub async fn keep(db: &mut PgConnection, id: Uuid, fields: &str) -> Result<Kept, Error> {
    let kept: Option<(String, String, bool)> = sqlx::query_as(
        "INSERT INTO rendered_task_instance_fields \
                (dag_id, task_id, run_id, map_index, rendered_fields, k8s_pod_yaml) \
         SELECT dag_id, task_id, run_id, map_index, $2::json, 'null'::json \
           FROM task_instance \
          WHERE id = $1 \
         ON CONFLICT (dag_id, task_id, run_id, map_index) DO UPDATE \
            SET rendered_fields = EXCLUDED.rendered_fields, k8s_pod_yaml = EXCLUDED.k8s_pod_yaml \
         RETURNING dag_id, task_id, xmax = 0 AND map_index <= 0",
    )
    .bind(id)
    .bind(fields)
    .fetch_optional(db)
    .await?;
    Ok(match kept {
        None => Kept::NoTaskInstance,
        Some((dag_id, task_id, first_of_run)) => Kept::Yes {
            dag_id,
            task_id,
            first_of_run,
        },
    })
}

/// Drops what is older than the newest `runs` runs of the DAG.
/// `airflow: RenderedTaskInstanceFields.delete_old_records`
///
/// # Errors
/// The database's errors.
pub async fn drop_old(
    db: &mut PgConnection,
    dag_id: &str,
    task_id: &str,
    runs: i64,
) -> Result<u64, Error> {
    let dropped = sqlx::query(
        "DELETE FROM rendered_task_instance_fields \
          WHERE dag_id = $1 AND task_id = $2 \
            AND run_id NOT IN (SELECT run_id FROM dag_run \
                                WHERE dag_id = $1 \
                                ORDER BY run_after DESC LIMIT $3)",
    )
    .bind(dag_id)
    .bind(task_id)
    .bind(runs)
    .execute(db)
    .await?;
    Ok(dropped.rows_affected())
}

/// Names a mapped task instance; `false` when there is none with this id.
///
/// # Errors
/// The database's errors.
pub async fn name_map_index(db: &mut PgConnection, id: Uuid, name: &str) -> Result<bool, Error> {
    let named = sqlx::query(
        "UPDATE task_instance SET rendered_map_index = $2, updated_at = now() WHERE id = $1",
    )
    .bind(id)
    .bind(name)
    .execute(db)
    .await?;
    Ok(named.rows_affected() == 1)
}

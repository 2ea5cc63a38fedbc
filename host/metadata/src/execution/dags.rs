//! DAGs, as tasks see them.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// What a task may know of a DAG.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DagRow {
    pub dag_id: String,
    pub is_paused: bool,
    pub bundle_name: Option<String>,
    pub bundle_version: Option<String>,
    pub relative_fileloc: Option<String>,
    pub owners: Option<String>,
    pub tags: Vec<String>,
    pub next_dagrun: Option<DateTime<Utc>>,
}

/// # Errors
/// The database's errors.
pub async fn find(db: &mut PgConnection, dag_id: &str) -> Result<Option<DagRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT d.dag_id, d.is_paused, d.bundle_name, d.bundle_version, d.relative_fileloc, d.owners, \
                ARRAY(SELECT t.name FROM dag_tag t WHERE t.dag_id = d.dag_id \
                       ORDER BY t.name COLLATE \"C\")::text[] AS tags, \
                d.next_dagrun \
           FROM dag d WHERE d.dag_id = $1",
    )
    .bind(dag_id)
    .fetch_optional(db)
    .await?)
}

/// An asset that a task names as inlet or outlet.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AssetOfTask {
    pub name: String,
    pub uri: String,
}

/// One task's part of the serialized DAG that the run of the task instance uses; `Null` when the DAG has no stored form
/// or no such task any more, `None` when there is no such task instance. `airflow: DBDagBag.get_dag_for_run`
///
/// # Errors
/// The database's errors.
pub async fn stored_task_of(db: &mut PgConnection, id: Uuid) -> Result<Option<Value>, Error> {
    let found: Option<(String, Option<Value>, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT ti.task_id, \
                (SELECT t.value -> '__var' FROM jsonb_array_elements(s.data -> 'dag' -> 'tasks') t \
                  WHERE t.value -> '__var' ->> 'task_id' = ti.task_id), \
                s.data_compressed \
           FROM task_instance ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
           LEFT JOIN serialized_dag s ON s.dag_version_id = \
                CASE WHEN coalesce(dr.bundle_version, '') <> '' AND dr.created_dag_version_id IS NOT NULL \
                     THEN dr.created_dag_version_id \
                     ELSE (SELECT v.id FROM dag_version v WHERE v.dag_id = dr.dag_id \
                            ORDER BY v.version_number DESC LIMIT 1) END \
          WHERE ti.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(
        found.map(|(task_id, task, compressed)| match (task, compressed) {
            (Some(task), _) => task,
            (None, Some(compressed)) => task_of_compressed(&compressed, &task_id),
            (None, None) => Value::Null,
        }),
    )
}

/// `data_compressed` is zlib of the same document. `[core] compress_serialized_dags`
fn task_of_compressed(compressed: &[u8], task_id: &str) -> Value {
    let document: Value =
        serde_json::from_reader(flate2::read::ZlibDecoder::new(compressed)).unwrap_or_default();
    document["dag"]["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| &task["__var"])
        .find(|task| task["task_id"] == task_id)
        .cloned()
        .unwrap_or_default()
}

/// Which of these assets are not active.
///
/// # Errors
/// The database's errors.
pub async fn inactive(
    db: &mut PgConnection,
    names: &[String],
    uris: &[String],
) -> Result<Vec<AssetOfTask>, Error> {
    Ok(sqlx::query_as(
        "SELECT DISTINCT wanted.name, wanted.uri \
           FROM unnest($1::text[], $2::text[]) AS wanted (name, uri) \
          WHERE NOT EXISTS (SELECT 1 FROM asset_active a WHERE a.name = wanted.name AND a.uri = wanted.uri) \
          ORDER BY wanted.name, wanted.uri",
    )
    .bind(names)
    .bind(uris)
    .fetch_all(db)
    .await?)
}

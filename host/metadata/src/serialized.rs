//! Serialized DAGs, read once per stored form and kept while the host lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use model::SerializedDag;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::Error;

/// The newest stored form of a DAG.
#[derive(Debug, Clone)]
pub struct StoredDag {
    pub dag_version_id: Uuid,
    pub dag: Arc<SerializedDag>,
}

/// Keeps what was read, by version and time of writing: Airflow may replace a version's form in place while
/// no run uses it.
#[derive(Debug, Default)]
pub struct SerializedDags {
    read: Mutex<HashMap<String, Read>>,
}

/// The version that was read, when it was written, and what it says.
type Read = (Uuid, DateTime<Utc>, Arc<SerializedDag>);

impl SerializedDags {
    /// The latest version of each of `dag_ids`; a DAG without one is left out, and one that can't be read
    /// comes as its error, so that it holds up nobody else. `airflow: DBDagBag.get_latest_version_of_dag`
    ///
    /// # Errors
    /// The database's errors.
    pub async fn latest(
        &self,
        db: &mut PgConnection,
        dag_ids: &[String],
    ) -> Result<HashMap<String, Result<StoredDag, Error>>, Error> {
        if dag_ids.is_empty() {
            return Ok(HashMap::new());
        }
        let heads: Vec<(String, Uuid, DateTime<Utc>)> = sqlx::query_as(
            "SELECT DISTINCT ON (v.dag_id) v.dag_id, v.id, greatest(s.last_updated, w.updated_at) \
               FROM dag_version v JOIN serialized_dag s ON s.dag_version_id = v.id \
               LEFT JOIN modalflow.task_weights w ON w.dag_version_id = v.id \
              WHERE v.dag_id = ANY($1) \
              ORDER BY v.dag_id, v.version_number DESC",
        )
        .bind(dag_ids)
        .fetch_all(&mut *db)
        .await?;

        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let read = self.read.lock().expect("no panic while it is held");
            for (dag_id, version, updated) in heads {
                match read.get(&dag_id) {
                    Some((v, u, dag)) if *v == version && *u == updated => {
                        let stored = StoredDag {
                            dag_version_id: version,
                            dag: Arc::clone(dag),
                        };
                        found.insert(dag_id, Ok(stored));
                    }
                    _ => missing.push(version),
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let rows: Vec<StoredRow> = sqlx::query_as(
            "SELECT s.dag_id, s.dag_version_id, greatest(s.last_updated, w.updated_at) AS last_updated, \
                    s.data, s.data_compressed, w.weights \
               FROM serialized_dag s \
               LEFT JOIN modalflow.task_weights w ON w.dag_version_id = s.dag_version_id \
              WHERE s.dag_version_id = ANY($1)",
        )
        .bind(&missing)
        .fetch_all(&mut *db)
        .await?;
        for row in rows {
            let parsed = parse(row.data, row.data_compressed.as_deref())
                .map_err(|source| Error::SerializedDag {
                    dag_id: row.dag_id.clone(),
                    source,
                })
                .and_then(|dag| weighted(dag, row.weights));
            let entry = parsed.map(|dag| {
                let dag = Arc::new(dag);
                self.read.lock().expect("no panic while it is held").insert(
                    row.dag_id.clone(),
                    (row.dag_version_id, row.last_updated, Arc::clone(&dag)),
                );
                StoredDag {
                    dag_version_id: row.dag_version_id,
                    dag,
                }
            });
            found.insert(row.dag_id, entry);
        }
        Ok(found)
    }

    /// As [`Self::latest`] for one DAG; `None` when it has no stored form.
    ///
    /// # Errors
    /// The database's errors, and [`Error::SerializedDag`] when the stored form can't be read.
    pub async fn latest_of(
        &self,
        db: &mut PgConnection,
        dag_id: &str,
    ) -> Result<Option<StoredDag>, Error> {
        self.latest(db, &[dag_id.to_owned()])
            .await?
            .remove(dag_id)
            .transpose()
    }
}

#[derive(sqlx::FromRow)]
struct StoredRow {
    dag_id: String,
    dag_version_id: Uuid,
    last_updated: DateTime<Utc>,
    data: Option<serde_json::Value>,
    data_compressed: Option<Vec<u8>>,
    weights: Option<Json<HashMap<String, i32>>>,
}

/// With what rules of the user's own said.
fn weighted(
    mut dag: SerializedDag,
    weights: Option<Json<HashMap<String, i32>>>,
) -> Result<SerializedDag, Error> {
    if let Some(Json(weights)) = weights {
        dag.set_custom_weights(&weights);
    }
    match dag.task_without_weight() {
        None => Ok(dag),
        Some(task) => Err(Error::NoWeight {
            dag_id: dag.dag_id.clone(),
            task_id: task.task_id.clone(),
        }),
    }
}

/// `data_compressed` is zlib, written when `[core] compress_serialized_dags` is on.
fn parse(
    data: Option<serde_json::Value>,
    compressed: Option<&[u8]>,
) -> Result<SerializedDag, model::Error> {
    match (data, compressed) {
        (Some(data), _) => SerializedDag::parse(&data),
        (None, Some(bytes)) => SerializedDag::parse_compressed(bytes),
        (None, None) => SerializedDag::parse(&serde_json::Value::Null),
    }
}

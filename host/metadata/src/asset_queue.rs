//! Asset events that DAGs wait for (`asset_dag_run_queue`), and the run that consumes them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use model::AssetCondition;
use scheduler::snapshot::{AssetQueue, QueuedAsset};
use serde_json::Value;
use sqlx::{PgConnection, Row};

use crate::Error;

macro_rules! queue_columns {
    ($condition:literal) => {
        concat!(
            "SELECT q.target_dag_id, q.created_at, q.asset_id, a.name, a.uri, d.asset_expression, \
                    coalesce(d.max_active_runs, 16) AS max_active_runs, \
                    EXISTS (SELECT 1 FROM asset_active v WHERE v.name = a.name AND v.uri = a.uri) AS is_active, \
                    ARRAY(SELECT l.name FROM asset_alias_asset x JOIN asset_alias l ON l.id = x.alias_id \
                           WHERE x.asset_id = a.id)::text[] AS aliases, \
                    (SELECT count(*) FROM dag_run r \
                      WHERE r.dag_id = d.dag_id AND r.state IN ('queued', 'running')) AS active_runs \
               FROM asset_dag_run_queue q \
               JOIN dag d ON d.dag_id = q.target_dag_id \
               JOIN asset a ON a.id = q.asset_id \
              WHERE NOT d.is_paused AND NOT d.is_stale AND NOT coalesce(d.has_import_errors, false) \
                AND NOT d.exceeds_max_non_backfill AND d.asset_expression::text <> 'null' ",
            $condition
        )
    };
}

/// The queues of all DAGs that may have a run now. `airflow: DagModel.dags_needing_dagruns`
///
/// # Errors
/// The database's errors.
pub async fn waiting(db: &mut PgConnection) -> Result<Vec<AssetQueue>, Error> {
    let rows = sqlx::query(queue_columns!("ORDER BY q.target_dag_id, q.asset_id"))
        .fetch_all(db)
        .await?;
    queues(&rows)
}

/// The queues of these DAGs with their rows locked; what another session has locked is left out.
///
/// # Errors
/// The database's errors.
pub async fn lock(db: &mut PgConnection, dag_ids: &[&str]) -> Result<Vec<AssetQueue>, Error> {
    // Airflow's own locks: who holds them is making the run already, or is adding to the queue just now.
    let rows = sqlx::query(queue_columns!(
        "AND q.target_dag_id = ANY($1) ORDER BY q.target_dag_id, q.asset_id \
           FOR UPDATE OF q SKIP LOCKED FOR NO KEY UPDATE OF d SKIP LOCKED"
    ))
    .bind(dag_ids)
    .fetch_all(db)
    .await?;
    queues(&rows)
}

fn queues(rows: &[sqlx::postgres::PgRow]) -> Result<Vec<AssetQueue>, Error> {
    let mut queues: BTreeMap<String, AssetQueue> = BTreeMap::new();
    for row in rows {
        let dag_id: String = row.try_get("target_dag_id")?;
        let asset = QueuedAsset {
            asset_id: row.try_get("asset_id")?,
            name: row.try_get("name")?,
            uri: row.try_get("uri")?,
            is_active: row.try_get("is_active")?,
            aliases: row.try_get("aliases")?,
            created_at: row.try_get("created_at")?,
        };
        if let Some(queue) = queues.get_mut(&dag_id) {
            queue.queued.push(asset);
            continue;
        }
        let expression: Value = row.try_get("asset_expression")?;
        let Some(condition) = AssetCondition::parse(&expression) else {
            tracing::warn!(dag_id, %expression, "this asset expression is of an unknown form");
            continue;
        };
        let queue = AssetQueue {
            dag_id: dag_id.clone(),
            condition,
            queued: vec![asset],
            max_active_runs: row.try_get("max_active_runs")?,
            active_runs: row.try_get("active_runs")?,
        };
        queues.insert(dag_id, queue);
    }
    Ok(queues.into_values().collect())
}

/// Rows of DAGs that no asset triggers any more. `airflow: DagModel.dags_needing_dagruns`
///
/// # Errors
/// The database's errors.
pub async fn forget_strays(db: &mut PgConnection) -> Result<u64, Error> {
    let done = sqlx::query(
        "DELETE FROM asset_dag_run_queue q USING dag d \
          WHERE d.dag_id = q.target_dag_id \
            AND (d.asset_expression IS NULL OR d.asset_expression::text = 'null')",
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Gives the run the events that it was made for, and takes the locked rows from the queue.
/// `airflow: SchedulerJobRunner._create_dag_runs_asset_triggered`
///
/// # Errors
/// The database's errors.
pub async fn consume(
    db: &mut PgConnection,
    queue: &AssetQueue,
    dag_run_id: i32,
    triggered: DateTime<Utc>,
    catchup: bool,
) -> Result<(), Error> {
    // From the last run of this kind on. The first run of a DAG without catchup begins when the DAG began to wait.
    sqlx::query(
        "INSERT INTO dagrun_asset_event (dag_run_id, event_id) \
         SELECT $1, e.id FROM asset_event e \
          WHERE (e.asset_id IN (SELECT r.asset_id FROM dag_schedule_asset_reference r WHERE r.dag_id = $2) \
              OR e.id IN (SELECT x.event_id FROM asset_alias_asset_event x \
                            JOIN dag_schedule_asset_alias_reference r ON r.alias_id = x.alias_id \
                           WHERE r.dag_id = $2)) \
            AND e.timestamp <= $3 \
            AND e.timestamp > coalesce( \
                  (SELECT max(run_after) FROM dag_run \
                    WHERE dag_id = $2 AND run_type = 'asset_triggered' AND run_after < $3), \
                  CASE WHEN $4 THEN NULL \
                       ELSE (SELECT min(created_at) FROM dag_schedule_asset_reference WHERE dag_id = $2) END, \
                  '-infinity') \
          ORDER BY e.timestamp, e.id \
         ON CONFLICT DO NOTHING",
    )
    .bind(dag_run_id)
    .bind(&queue.dag_id)
    .bind(triggered)
    .bind(catchup)
    .execute(&mut *db)
    .await?;
    let assets: Vec<i32> = queue.queued.iter().map(|asset| asset.asset_id).collect();
    sqlx::query("DELETE FROM asset_dag_run_queue WHERE target_dag_id = $1 AND asset_id = ANY($2)")
        .bind(&queue.dag_id)
        .bind(&assets)
        .execute(db)
        .await?;
    Ok(())
}

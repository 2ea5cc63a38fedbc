//! Values that tasks and assets keep: `task_state_store`, `asset_state_store`. Values are JSON as text.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::task_instances::Place;
use crate::Error;

/// # Errors
/// The database's errors.
pub async fn task_value(
    db: &mut PgConnection,
    of: &Place,
    key: &str,
) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT value FROM task_state_store \
          WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = $5",
    )
    .bind(&of.dag_id)
    .bind(&of.run_id)
    .bind(&of.task_id)
    .bind(of.map_index)
    .bind(key)
    .fetch_optional(db)
    .await?)
}

/// # Errors
/// The database's errors.
pub async fn set_task_value(
    db: &mut PgConnection,
    of: &Place,
    key: &str,
    value: &str,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO task_state_store (dag_run_id, task_id, map_index, key, dag_id, run_id, value, updated_at, \
                expires_at) \
         SELECT id, $3, $4, $5, $1, $2, $6, $8, $7 FROM dag_run WHERE dag_id = $1 AND run_id = $2 \
         ON CONFLICT (dag_run_id, task_id, map_index, key) DO UPDATE \
            SET value = EXCLUDED.value, updated_at = EXCLUDED.updated_at, expires_at = EXCLUDED.expires_at",
    )
    .bind(&of.dag_id)
    .bind(&of.run_id)
    .bind(&of.task_id)
    .bind(of.map_index)
    .bind(key)
    .bind(value)
    .bind(expires_at)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// Removes one value, or all of the task instance.
///
/// # Errors
/// The database's errors.
pub async fn remove_task_values(
    db: &mut PgConnection,
    of: &Place,
    key: Option<&str>,
) -> Result<u64, Error> {
    let removed = sqlx::query(
        "DELETE FROM task_state_store \
          WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 \
            AND ($5::text IS NULL OR key = $5)",
    )
    .bind(&of.dag_id)
    .bind(&of.run_id)
    .bind(&of.task_id)
    .bind(of.map_index)
    .bind(key)
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// # Errors
/// The database's errors.
pub async fn asset_value(
    db: &mut PgConnection,
    asset_id: i32,
    key: &str,
) -> Result<Option<String>, Error> {
    Ok(
        sqlx::query_scalar("SELECT value FROM asset_state_store WHERE asset_id = $1 AND key = $2")
            .bind(asset_id)
            .bind(key)
            .fetch_optional(db)
            .await?,
    )
}

/// # Errors
/// The database's errors.
pub async fn set_asset_value(
    db: &mut PgConnection,
    asset_id: i32,
    key: &str,
    value: &str,
    writer: &Place,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO asset_state_store (asset_id, key, value, updated_at, last_updated_by_kind, \
                last_updated_by_dag_id, last_updated_by_run_id, last_updated_by_task_id, \
                last_updated_by_map_index) \
         VALUES ($1, $2, $3, $4, 'task', $5, $6, $7, $8) \
         ON CONFLICT (asset_id, key) DO UPDATE \
            SET value = EXCLUDED.value, updated_at = EXCLUDED.updated_at, \
                last_updated_by_kind = EXCLUDED.last_updated_by_kind, \
                last_updated_by_dag_id = EXCLUDED.last_updated_by_dag_id, \
                last_updated_by_run_id = EXCLUDED.last_updated_by_run_id, \
                last_updated_by_task_id = EXCLUDED.last_updated_by_task_id, \
                last_updated_by_map_index = EXCLUDED.last_updated_by_map_index",
    )
    .bind(asset_id)
    .bind(key)
    .bind(value)
    .bind(now)
    .bind(&writer.dag_id)
    .bind(&writer.run_id)
    .bind(&writer.task_id)
    .bind(writer.map_index)
    .execute(db)
    .await?;
    Ok(())
}

/// Removes one value, or all of the asset.
///
/// # Errors
/// The database's errors.
pub async fn remove_asset_values(
    db: &mut PgConnection,
    asset_id: i32,
    key: Option<&str>,
) -> Result<u64, Error> {
    let removed = sqlx::query(
        "DELETE FROM asset_state_store WHERE asset_id = $1 AND ($2::text IS NULL OR key = $2)",
    )
    .bind(asset_id)
    .bind(key)
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

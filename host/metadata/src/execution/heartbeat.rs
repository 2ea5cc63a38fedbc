//! Signs of life: `PUT task-instances/{id}/heartbeat`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// Notes that the try `id` lives on that host, in that process; `false` when it does not run there.
///
/// # Errors
/// The database's errors.
pub async fn beat(
    db: &mut PgConnection,
    id: Uuid,
    hostname: &str,
    pid: i32,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let beaten = sqlx::query(
        "UPDATE task_instance \
            SET last_heartbeat_at = $4, updated_at = $4 \
          WHERE id = $1 AND state = 'running' AND hostname = $2 AND pid = $3",
    )
    .bind(id)
    .bind(hostname)
    .bind(pid)
    .bind(now)
    .execute(db)
    .await?;
    Ok(beaten.rows_affected() == 1)
}

/// Where a task instance runs now.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Whereabouts {
    pub state: Option<String>,
    pub hostname: Option<String>,
    pub pid: Option<i32>,
}

/// # Errors
/// The database's errors.
pub async fn whereabouts(db: &mut PgConnection, id: Uuid) -> Result<Option<Whereabouts>, Error> {
    Ok(
        sqlx::query_as("SELECT state, hostname, pid FROM task_instance WHERE id = $1")
            .bind(id)
            .fetch_optional(db)
            .await?,
    )
}

/// Whether `id` was the try of a task instance that has moved on: it was retried or cleared.
///
/// # Errors
/// The database's errors.
pub async fn is_superseded(db: &mut PgConnection, id: Uuid) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM task_instance_history WHERE task_instance_id = $1)",
    )
    .bind(id)
    .fetch_one(db)
    .await?)
}

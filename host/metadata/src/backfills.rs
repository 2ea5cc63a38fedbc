//! Backfills: their runs are made by whoever asks for them; what is left is to see that one is over.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::Error;

/// A backfill without a run is still being set up, until it is this old.
const SET_UP: TimeDelta = TimeDelta::minutes(2);

/// Sets `completed_at` of backfills all of whose runs are finished.
/// `airflow: SchedulerJobRunner._mark_backfills_complete`
///
/// # Errors
/// The database's errors.
pub async fn complete(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE backfill b SET completed_at = $1, updated_at = $1 \
          WHERE b.completed_at IS NULL \
            AND (b.created_at < $2 \
              OR EXISTS (SELECT 1 FROM backfill_dag_run x WHERE x.backfill_id = b.id)) \
            AND NOT EXISTS (SELECT 1 FROM dag_run r \
                             WHERE r.backfill_id = b.id AND r.state IN ('queued', 'running'))",
    )
    .bind(now)
    .bind(now - SET_UP)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

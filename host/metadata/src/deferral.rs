//! What waits in the triggerer: task instances, and watchers of assets.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::Error;

/// How many task instances are deferred.
///
/// # Errors
/// The database's errors.
pub async fn waiting(db: &mut PgConnection) -> Result<i64, Error> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM task_instance WHERE state = 'deferred'")
            .fetch_one(db)
            .await?,
    )
}

/// How many watchers wait for events of assets. Airflow's sync writes those of DAGs that are not paused.
///
/// # Errors
/// The database's errors.
pub async fn watchers(db: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM asset_watcher")
        .fetch_one(db)
        .await?)
}

/// Those that waited longer than they wanted to go back to a worker, which raises the timeout in the task.
/// `airflow: SchedulerJobRunner.check_trigger_timeouts`
///
/// # Errors
/// The database's errors.
pub async fn time_out(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance SET state = 'scheduled', scheduled_dttm = $1, updated_at = $1, trigger_id = NULL, \
                next_method = '__fail__', next_kwargs = '{\"error\": \"Trigger timeout\"}' \
          WHERE state = 'deferred' AND trigger_timeout < $1",
    )
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

//! The one `SchedulerJob` row that stands for modalflow in Airflow's tables: runs and task instances refer to it,
//! and the UI's health page reads its heartbeat.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};

use crate::Error;

/// What our row has in `hostname`: a real scheduler writes its machine's name.
const HOSTNAME: &str = "modalflow";

/// Makes our row if there is none, and notes that the scheduler lives. Answers its id.
/// `airflow: Job.heartbeat`
///
/// # Errors
/// The database's errors.
pub async fn heartbeat(db: &mut PgConnection, now: DateTime<Utc>) -> Result<i32, Error> {
    let ours: Option<i32> = sqlx::query_scalar(
        "UPDATE job SET latest_heartbeat = $1, state = 'running', end_date = NULL \
          WHERE id = (SELECT max(id) FROM job WHERE job_type = 'SchedulerJob' AND hostname = $2) \
         RETURNING id",
    )
    .bind(now)
    .bind(HOSTNAME)
    .fetch_optional(&mut *db)
    .await?;
    if let Some(id) = ours {
        return Ok(id);
    }
    Ok(sqlx::query_scalar(
        "INSERT INTO job (state, job_type, start_date, latest_heartbeat, hostname, unixname) \
         VALUES ('running', 'SchedulerJob', $1, $1, $2, 'modalflow') RETURNING id",
    )
    .bind(now)
    .bind(HOSTNAME)
    .fetch_one(db)
    .await?)
}

/// When the last tick began, if there was one: it saw everything that was committed by then.
///
/// # Errors
/// The database's errors.
pub async fn last_tick(pool: &PgPool) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT max(latest_heartbeat) FROM job WHERE job_type = 'SchedulerJob' AND hostname = $1",
    )
    .bind(HOSTNAME)
    .fetch_one(pool)
    .await?)
}

/// A real Airflow scheduler that is alive on this database: its host name and last heartbeat.
///
/// # Errors
/// The database's errors.
pub async fn living_scheduler(
    db: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<Option<(String, DateTime<Utc>)>, Error> {
    // airflow: [scheduler] scheduler_health_check_threshold
    let alive_since = now - TimeDelta::seconds(30);
    Ok(sqlx::query_as(
        "SELECT coalesce(hostname, '?'), latest_heartbeat FROM job \
          WHERE job_type = 'SchedulerJob' AND state = 'running' AND hostname <> $1 \
            AND latest_heartbeat > $2 \
          ORDER BY latest_heartbeat DESC LIMIT 1",
    )
    .bind(HOSTNAME)
    .bind(alive_since)
    .fetch_optional(db)
    .await?)
}

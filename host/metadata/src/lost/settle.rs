//! Writing what becomes of a lost try.

use chrono::{DateTime, TimeDelta, Utc};
use model::TaskInstanceState;
use scheduler::plan::Lost;
use sqlx::PgConnection;
use uuid::Uuid;

use super::TryFacts;
use crate::{Error, history};

const STATE_MISMATCH: &str = "state mismatch";

/// Writes what becomes of a lost try, with a `log` row that tells people why.
/// `airflow: TaskInstance.handle_failure`
///
/// # Errors
/// The database's errors.
pub async fn settle(
    db: &mut PgConnection,
    lost: &TryFacts,
    decision: &Lost,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let event = match decision {
        Lost::UpForRetry | Lost::Failed => "failed",
        Lost::Requeue | Lost::Again { .. } => "requeued",
        // Airflow's word: its scheduler hears of the end from its executor.
        Lost::Cleared { .. } => STATE_MISMATCH,
    };
    log(db, lost, event, reason, now).await?;
    match decision {
        Lost::Requeue => {
            send_back(db, lost, now).await?;
            count(db, lost, reason, now).await?;
            Ok(())
        }
        Lost::Again { max_tries } => run_again(db, lost, *max_tries, reason, now).await,
        Lost::Cleared { max_tries } => set_cleared(db, lost, *max_tries, now).await,
        Lost::UpForRetry => {
            forget_override(db, lost.id).await?;
            end_try(db, lost, TaskInstanceState::UpForRetry, now).await
        }
        Lost::Failed => {
            forget_override(db, lost.id).await?;
            end_try(db, lost, TaskInstanceState::Failed, now).await?;
            if lost.fail_fast {
                crate::execution::fail_fast(db, &lost.key, now).await?;
            }
            Ok(())
        }
    }
}

/// What an earlier fault of the platform said of the wait for this try holds for no other.
async fn forget_override(db: &mut PgConnection, id: Uuid) -> Result<(), Error> {
    sqlx::query(
        "UPDATE task_instance SET retry_delay_override = NULL, retry_reason = NULL WHERE id = $1",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

async fn end_try(
    db: &mut PgConnection,
    lost: &TryFacts,
    state: TaskInstanceState,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE task_instance SET end_date = $2, updated_at = $2, \
                duration = extract(epoch FROM $2 - start_date), next_method = NULL, next_kwargs = NULL \
          WHERE id = $1",
    )
    .bind(lost.id)
    .bind(now)
    .execute(&mut *db)
    .await?;
    let id = match state {
        TaskInstanceState::UpForRetry => history::archive(db, &[lost.id]).await?[0].1,
        _ => lost.id,
    };
    sqlx::query("UPDATE task_instance SET state = $2, updated_at = $3 WHERE id = $1")
        .bind(id)
        .bind(state.as_str())
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

/// Back to scheduled: the try never started, so its number stays. It gets a new id all the same, should the lost
/// container turn up after all.
pub(crate) async fn send_back(
    db: &mut PgConnection,
    queued: &TryFacts,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    // task_reschedule has no ON UPDATE CASCADE: its rows move in the same statement. A sensor needs its first one.
    sqlx::query(
        "WITH moved AS (UPDATE task_reschedule SET ti_id = $3 WHERE ti_id = $1) \
         UPDATE task_instance SET id = $3, state = 'scheduled', scheduled_dttm = $2, queued_dttm = NULL, \
                queued_by_job_id = NULL, external_executor_id = NULL, updated_at = $2 \
          WHERE id = $1",
    )
    .bind(queued.id)
    .bind(now)
    .bind(Uuid::now_v7())
    .execute(db)
    .await?;
    Ok(())
}

/// It ran and was taken away: the try is over, and costs none of those that the task has.
async fn run_again(
    db: &mut PgConnection,
    lost: &TryFacts,
    max_tries: i32,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let wait = count(db, lost, reason, now).await?;
    // In the row before it is archived, as what a retry policy says of the coming retry.
    sqlx::query(
        "UPDATE task_instance SET max_tries = $2, retry_delay_override = $3, retry_reason = $4 WHERE id = $1",
    )
    .bind(lost.id)
    .bind(max_tries)
    .bind(wait.as_seconds_f64())
    // airflow: RetryReason; the column holds no more.
    .bind(reason.chars().take(500).collect::<String>())
    .execute(&mut *db)
    .await?;
    end_try(db, lost, TaskInstanceState::UpForRetry, now).await
}

/// Counts a platform fault, and answers how long the task instance is to wait for it.
async fn count(
    db: &mut PgConnection,
    lost: &TryFacts,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<TimeDelta, Error> {
    let wait = scheduler::lost::backoff(lost.platform_faults + 1);
    sqlx::query(
        "INSERT INTO modalflow.requeue AS q \
                (dag_id, run_id, task_id, map_index, try_number, count, last_reason, not_before) \
         VALUES ($1, $2, $3, $4, $5, 1, $6, $7) \
         ON CONFLICT (dag_id, run_id, task_id, map_index, try_number) \
         DO UPDATE SET count = q.count + 1, last_reason = EXCLUDED.last_reason, not_before = EXCLUDED.not_before",
    )
    .bind(&lost.key.dag_id)
    .bind(&lost.key.run_id)
    .bind(&lost.key.task_id)
    .bind(lost.key.map_index)
    .bind(lost.try_number)
    .bind(reason)
    .bind(now + wait)
    .execute(db)
    .await?;
    Ok(wait)
}

/// In the audit log: another container came for a try that runs already.
const REDELIVERED: &str = "redelivered";

/// Notes that another container came for a running try: should its own fall silent, it was taken from it.
///
/// # Errors
/// The database's errors.
pub async fn note_redelivery(
    db: &mut PgConnection,
    running: &TryFacts,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    log(db, running, REDELIVERED, reason, now).await
}

/// Whether another container came for this try while it ran.
///
/// # Errors
/// The database's errors.
pub async fn was_redelivered(db: &mut PgConnection, lost: &TryFacts) -> Result<bool, Error> {
    Ok(logged_since_start(db, lost, REDELIVERED).await? > 0)
}

/// A running task instance was cleared; now that its container is gone it starts over.
/// `airflow: SchedulerJobRunner.process_executor_events`, restarting
async fn set_cleared(
    db: &mut PgConnection,
    lost: &TryFacts,
    max_tries: i32,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE task_instance SET state = NULL, end_date = $2, updated_at = $2, max_tries = $3 \
          WHERE id = $1 AND state = 'restarting'",
    )
    .bind(lost.id)
    .bind(now)
    .bind(max_tries)
    .execute(db)
    .await?;
    Ok(())
}

/// A row in the audit log of the try.
pub(crate) async fn log(
    db: &mut PgConnection,
    lost: &TryFacts,
    event: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO log (dttm, dag_id, task_id, map_index, event, logical_date, run_id, owner, extra, try_number) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(now)
    .bind(&lost.key.dag_id)
    .bind(&lost.key.task_id)
    .bind(lost.key.map_index)
    .bind(event)
    .bind(lost.logical_date)
    .bind(&lost.key.run_id)
    // As Airflow has it.
    .bind(lost.owner.as_ref().filter(|_| event != STATE_MISMATCH))
    .bind(reason)
    .bind(lost.try_number)
    .execute(db)
    .await?;
    Ok(())
}

/// How often the audit log of the try has an event since the try last began to run.
pub(crate) async fn logged_since_start(
    db: &mut PgConnection,
    facts: &TryFacts,
    event: &str,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM log l \
          WHERE l.dag_id = $1 AND l.run_id = $2 AND l.task_id = $3 AND l.map_index = $4 AND l.try_number = $5 \
            AND l.event = $6 \
            AND l.dttm > coalesce((SELECT max(r.dttm) FROM log r \
                                    WHERE r.dag_id = $1 AND r.run_id = $2 AND r.task_id = $3 \
                                      AND r.map_index = $4 AND r.try_number = $5 AND r.event = 'running'), \
                                  '-infinity')",
    )
    .bind(&facts.key.dag_id)
    .bind(&facts.key.run_id)
    .bind(&facts.key.task_id)
    .bind(facts.key.map_index)
    .bind(facts.try_number)
    .bind(event)
    .fetch_one(db)
    .await?)
}

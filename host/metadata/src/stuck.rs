//! Task instances that stay queued: their call was made and no worker took it.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::Error;
use crate::lost::{self, TryFacts};

/// `airflow: TASK_STUCK_IN_QUEUED_RESCHEDULE_EVENT`
const RESCHEDULED: &str = "stuck in queued reschedule";

/// Task instances that have been queued for longer than `timeout`, whose call was made or has been failing since then.
/// `airflow: SchedulerJobRunner._get_tis_stuck_in_queued`
///
/// # Errors
/// The database's errors.
pub async fn in_queue(
    db: &mut PgConnection,
    timeout: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Vec<TryFacts>, Error> {
    lost::queued_before(db, now - timeout).await
}

/// How often this try was sent back before. `airflow: _get_num_times_stuck_in_queued`
///
/// # Errors
/// The database's errors.
pub async fn times(db: &mut PgConnection, facts: &TryFacts) -> Result<i64, Error> {
    lost::logged_since_start(db, facts, RESCHEDULED).await
}

/// Back to scheduled, under a new id, so that a worker which takes the old call after all is turned away.
/// `airflow: SchedulerJobRunner._reschedule_stuck_task`
///
/// # Errors
/// The database's errors.
pub async fn reschedule(
    db: &mut PgConnection,
    facts: &TryFacts,
    timeout: TimeDelta,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let why = format!(
        "Task was in queued state for longer than {} seconds; task state will be set back to scheduled.",
        timeout.num_seconds()
    );
    lost::log(db, facts, RESCHEDULED, &why, now).await?;
    lost::send_back(db, facts, now).await
}

/// Why a try that was sent back `times` times fails.
#[must_use]
pub fn reason(times: i64) -> String {
    format!("Task was requeued more than {times} times and will be failed.")
}

/// It has been sent back often enough. `airflow: SchedulerJobRunner._maybe_requeue_stuck_ti`
///
/// # Errors
/// The database's errors.
pub async fn fail(
    db: &mut PgConnection,
    facts: &TryFacts,
    why: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    lost::log(db, facts, "stuck in queued tries exceeded", why, now).await?;
    sqlx::query(
        "UPDATE task_instance SET state = 'failed', start_date = coalesce(start_date, $2), end_date = $2, \
                duration = extract(epoch FROM $2 - coalesce(start_date, $2)), updated_at = $2 \
          WHERE id = $1 AND state = 'queued'",
    )
    .bind(facts.id)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

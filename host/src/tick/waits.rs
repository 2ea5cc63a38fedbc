//! Waits that end by the clock: deferred tasks, questions to people, deadlines of runs, and tasks that nobody started.

use chrono::{DateTime, TimeDelta, Utc};
use metadata::stuck;
use scheduler::lost::{Stuck, decide_stuck};
use scheduler::plan::Lost;
use sqlx::PgConnection;

use super::{Error, Report, observe};
use crate::house::House;

/// `airflow: [scheduler] task_queued_timeout`
const QUEUED_TIMEOUT: TimeDelta = TimeDelta::seconds(600);

/// Task instances that have waited long enough go on.
pub(super) async fn over(
    house: &House,
    db: &mut PgConnection,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    metadata::deferral::time_out(db, now).await?;
    metadata::hitl::time_out(db, now).await?;
    for facts in stuck::in_queue(db, QUEUED_TIMEOUT, now).await? {
        let times = stuck::times(db, &facts).await?;
        tracing::warn!(
            dag_id = facts.key.dag_id,
            run_id = facts.key.run_id,
            task_id = facts.key.task_id,
            map_index = facts.key.map_index,
            try_number = facts.try_number,
            times,
            "stuck in queued"
        );
        match decide_stuck(times) {
            Stuck::Again => stuck::reschedule(db, &facts, QUEUED_TIMEOUT, now).await?,
            Stuck::Fail => {
                let why = stuck::reason(scheduler::lost::STUCK_RETRIES);
                let owed = scheduler::callbacks::TaskCallbacks {
                    // airflow: SchedulerJobRunner._maybe_requeue_stuck_ti sends no e-mail.
                    email: None,
                    ..observe::owed(house, db, &facts, &Lost::Failed, report, now).await?
                };
                metadata::callbacks::requests::of_lost_try(db, facts.id, &owed, &why, now).await?;
                stuck::fail(db, &facts, &why, now).await?;
            }
        }
        report.tries_lost += 1;
    }
    Ok(())
}

//! One tick: lease, observe, snapshot, plan, apply, launch, report. Whoever asks for one (a timer, a command, a
//! finished task, a click) hands over no hint of what changed: every tick is the same tick.
//!
//! It calls the rooms in order, and contains no rule and no SQL.

mod callbacks;
mod create;
mod custom;
mod examine;
mod launch;
mod observe;
mod partitions;
mod queue;
mod report;
mod stored;
mod waits;

use chrono::{DateTime, Utc};
use metadata::run_snapshots::Which;
use sqlx::PgConnection;

use crate::clock;
use crate::executor::Watch;
use crate::house::House;

pub(crate) use callbacks::AT_ONCE as CALLBACKS_AT_ONCE;
pub(crate) use create::suffix;
pub use report::{Outcome, Report};

/// Rounds of one tick. Each takes what is due until nothing is; a catchup of ten years ends in the next ticks.
const ROUNDS: usize = 50;

/// What can stop a tick. What concerns one DAG only is a line in the report instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    #[error("run the tick: {0}")]
    Commit(#[source] sqlx::Error),
}

impl Error {
    /// Whether the next tick may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Metadata(error) => error.is_passing(),
            Self::Commit(_) => true,
        }
    }
}

/// Does what is due. Safe to call at any time, from any number of processes: without the lease it does nothing.
///
/// # Errors
/// The database's errors; then nothing of the tick has happened.
pub async fn run(house: &House, watch: &mut Watch) -> Result<Report, Error> {
    let now = clock::now();
    let Some(mut lease) = metadata::lease::acquire(&house.pool).await? else {
        return Ok(Report::taken());
    };
    let mut report = Report::default();
    let seen = watch.take();
    let decided = decide(house, &mut lease, &seen, &mut report, now).await;
    let intents = match decided {
        Ok(intents) => intents,
        Err(error) => {
            watch.put_back(seen);
            return Err(error);
        }
    };
    // Decisions and intents become true together; only then does anything leave the house.
    if let Err(error) = lease.commit().await {
        watch.put_back(seen);
        return Err(Error::Commit(error));
    }
    let (tasks, callbacks) = intents;
    // Tasks first: callbacks never hold them up.
    launch::send(house, watch, tasks, &mut report, now).await?;
    callbacks::send(house, watch, callbacks, &mut report, now).await?;
    Ok(report)
}

async fn decide(
    house: &House,
    db: &mut PgConnection,
    seen: &[crate::executor::Observation],
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(launch::Intents, callbacks::Intents), Error> {
    let job_id = metadata::jobs::heartbeat(db, now).await?;
    observe::ended_calls(house, db, seen, report, now).await?;
    observe::silent_tries(house, db, report, now).await?;
    waits::over(house, db, report, now).await?;
    metadata::asset_queue::forget_strays(db).await?;
    let mut which = Which::Changed;
    for _ in 0..ROUNDS {
        let partitioned = partitions::runs(house, db, job_id, report, now).await?;
        let triggered = create::asset_runs(house, db, job_id, report, now).await?;
        let created = create::due_runs(house, db, job_id, report, now).await?;
        let started = create::start_queued(db, report, now).await?;
        let ended = examine::running_runs(house, db, which, report, now).await?;
        // The plan of a run is a fixpoint: after the first round only runs that are new can have something to do.
        which = Which::New;
        if partitioned + triggered + created + started + ended == 0 {
            break;
        }
    }
    metadata::backfills::complete(db, now).await?;
    // Not before they were scheduled.
    queue::scheduled(house, db, job_id, report, clock::now()).await?;
    report.deadlines_missed += metadata::deadlines::miss(db, now).await?;
    let intents = (
        launch::intents(db, now).await?,
        callbacks::intents(house, db, seen, report, now).await?,
    );
    report.task_instances_deferred = metadata::deferral::waiting(db).await?;
    report.asset_watchers = metadata::deferral::watchers(db).await?;
    report.callbacks_in_triggerer = metadata::deadlines::in_triggerer_now(db).await?;
    report.timetables_asked = metadata::timetables::is_asked(db, now).await?;
    report.next_wake = metadata::dags::next_wake(db).await?;
    Ok(intents)
}

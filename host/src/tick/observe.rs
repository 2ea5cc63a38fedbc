//! What happened to calls and tries since the last tick, as far as nobody reported it.

use chrono::{DateTime, TimeDelta, Utc};
use metadata::{dispatch, lost};
use model::TaskInstanceState;
use scheduler::callbacks::{TaskCallbacks, of_lost};
use scheduler::lost::{LostTry, PLATFORM_FAULTS, decide};
use scheduler::plan::Lost;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Report, stored};
use crate::executor::{Fate, Observation};
use crate::house::House;

/// `airflow: [scheduler] task_instance_heartbeat_timeout`
const HEARTBEAT_TIMEOUT: TimeDelta = TimeDelta::seconds(300);
/// Calls that ended: a try that is still queued or running then has been lost.
pub(super) async fn ended_calls(
    house: &House,
    db: &mut PgConnection,
    seen: &[Observation],
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if !seen.is_empty() {
        let dispatch_ids: Vec<Uuid> = seen.iter().map(|o| o.dispatch_id).collect();
        for (dispatch_id, facts) in lost::unreported(db, &dispatch_ids).await? {
            let Some(observation) = seen.iter().find(|o| o.dispatch_id == dispatch_id) else {
                continue;
            };
            let started = facts.state != TaskInstanceState::Queued;
            // Neither says anything about the worker that has the try: its heartbeats do.
            if started && observation.fate == Fate::Unknown {
                continue;
            }
            if started && observation.fate == Fate::Taken {
                let reason = observation.fate.to_string();
                lost::note_redelivery(db, &facts, &reason, now).await?;
                continue;
            }
            let decision = decide(LostTry {
                state: facts.state,
                try_number: facts.try_number,
                max_tries: facts.max_tries,
                retries: retries(house, db, &facts, report, now).await?,
                started,
                platform_fault: observation.fate.is_platform_fault(started)
                    && facts.platform_faults < PLATFORM_FAULTS,
            });
            settle(
                house,
                db,
                &facts,
                &decision,
                &observation.fate.to_string(),
                report,
                now,
            )
            .await?;
        }
        dispatch::forget(db, &dispatch_ids).await?;
        report.calls_ended += seen.len() as u64;
    }
    dispatch::forget_withdrawn(db).await?;
    lost::requeue_without_intent(db, now).await?;
    Ok(())
}

/// Tries whose worker has been silent for too long.
pub(super) async fn silent_tries(
    house: &House,
    db: &mut PgConnection,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for facts in lost::without_heartbeat(db, HEARTBEAT_TIMEOUT, now).await? {
        let decision = decide(LostTry {
            state: facts.state,
            try_number: facts.try_number,
            max_tries: facts.max_tries,
            retries: retries(house, db, &facts, report, now).await?,
            started: true,
            // Whoever sends a second container has taken the first away.
            platform_fault: facts.platform_faults < PLATFORM_FAULTS
                && lost::was_redelivered(db, &facts).await?,
        });
        let reason = format!("no heartbeat for {} s", HEARTBEAT_TIMEOUT.num_seconds());
        settle(house, db, &facts, &decision, &reason, report, now).await?;
    }
    Ok(())
}

async fn settle(
    house: &House,
    db: &mut PgConnection,
    facts: &lost::TryFacts,
    decision: &Lost,
    reason: &str,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    tracing::warn!(
        dag_id = facts.key.dag_id,
        run_id = facts.key.run_id,
        task_id = facts.key.task_id,
        map_index = facts.key.map_index,
        try_number = facts.try_number,
        reason,
        decision = ?decision,
        "a try ended without a report"
    );
    // The row still is the lost try.
    let owed = owed(house, db, facts, decision, report, now).await?;
    metadata::callbacks::requests::of_lost_try(db, facts.id, &owed, reason, now).await?;
    lost::settle(db, facts, decision, reason, now).await?;
    if matches!(decision, Lost::Requeue | Lost::Again { .. }) {
        report.platform_faults += 1;
    } else {
        report.tries_lost += 1;
    }
    Ok(())
}

/// The retries of its task, where they count: of a try that was cleared while it ran.
async fn retries(
    house: &House,
    db: &mut PgConnection,
    facts: &lost::TryFacts,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<i32, Error> {
    if facts.state != TaskInstanceState::Restarting {
        return Ok(0);
    }
    let dag_ids = std::slice::from_ref(&facts.key.dag_id);
    let stored = stored::latest(house, db, dag_ids, report, now).await?;
    Ok(stored
        .get(&facts.key.dag_id)
        .and_then(|stored| stored.dag.task(&facts.key.task_id))
        .map_or(0, |task| task.retries))
}

/// The callbacks that the worker of a lost try can't run any more.
pub(super) async fn owed(
    house: &House,
    db: &mut PgConnection,
    facts: &lost::TryFacts,
    decision: &Lost,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<TaskCallbacks, Error> {
    let dag_ids = std::slice::from_ref(&facts.key.dag_id);
    let stored = stored::latest(house, db, dag_ids, report, now).await?;
    Ok(stored
        .get(&facts.key.dag_id)
        .and_then(|stored| stored.dag.task(&facts.key.task_id))
        .map(|task| of_lost(task, decision))
        .unwrap_or_default())
}

//! Sending out what was queued. It happens after the commit: a crash on the way leaves an intent that the next
//! tick sends again under the same key.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metadata::dispatch::{self, Intent, OpenCall};
use sqlx::PgConnection;
use uuid::Uuid;

use super::report::told;
use super::{Error, Report};
use crate::clock;
use crate::executor::{Fate, Observation, Watch, Workload};
use crate::house::House;

/// A call whose try is over has this long to leave by itself: its next heartbeat tells it.
const PATIENCE: TimeDelta = TimeDelta::seconds(30);

/// What the tick found to be sent out, followed and cancelled.
pub(super) struct Intents {
    unsent: Vec<Intent>,
    open: Vec<OpenCall>,
    superseded: Vec<OpenCall>,
}

pub(super) async fn intents(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Intents, Error> {
    Ok(Intents {
        unsent: dispatch::unsent(db, now).await?,
        open: dispatch::open_calls(db).await?,
        superseded: dispatch::superseded_calls(db, now - PATIENCE).await?,
    })
}

pub(super) async fn send(
    house: &House,
    watch: &mut Watch,
    intents: Intents,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    watch.follow(intents.open);
    for call in intents.superseded {
        if let Err(error) = house.executor.cancel(&call.call_id).await {
            report.problem(&error);
        }
    }
    if intents.unsent.is_empty() {
        return Ok(());
    }
    let failures: Vec<(Uuid, i32)> = intents
        .unsent
        .iter()
        .map(|intent| (intent.dispatch_id, intent.failures))
        .collect();
    let workloads = intents
        .unsent
        .into_iter()
        .map(|intent| workload(house, intent))
        .collect();
    let mut sent = Vec::new();
    for (workload, started) in house.executor.spawn(workloads).await {
        match started {
            Ok(call_id) => {
                watch.follow([OpenCall {
                    dispatch_id: workload.dispatch_id,
                    call_id: call_id.clone(),
                }]);
                sent.push((workload.dispatch_id, call_id));
            }
            Err(error) if error.is_refusal() => {
                watch.note(Observation {
                    dispatch_id: workload.dispatch_id,
                    fate: Fate::Refused { what: told(&error) },
                });
                report.problem(&error);
            }
            Err(error) => {
                let failed = failures
                    .iter()
                    .find(|(id, _)| *id == workload.dispatch_id)
                    .map_or(0, |(_, failures)| *failures);
                let not_before = clock::now() + backoff(failed, error.is_passing());
                dispatch::postpone(&house.pool, workload.dispatch_id, not_before).await?;
                report.problem(&error);
                report.wake_at(not_before);
            }
        }
    }
    report.calls_spawned += sent.len() as u64;
    dispatch::sent(&house.pool, &sent, now).await?;
    Ok(())
}

/// The token is made at the last moment, so that it is young when the worker uses it.
fn workload(house: &House, intent: Intent) -> Workload {
    let mut body = intent.workload;
    body["token"] = house.tokens.workload(intent.ti_id).into();
    Workload {
        dispatch_id: intent.dispatch_id,
        json: body.to_string(),
        executor_config: intent.executor_config,
    }
}

/// 0.5 s doubling to 30 s; half a minute at once for what will not pass by itself.
pub(super) fn backoff(failures: i32, is_passing: bool) -> TimeDelta {
    let seconds = if is_passing {
        0.5 * 2f64.powi(failures.clamp(0, 6))
    } else {
        30.0
    };
    TimeDelta::from_std(Duration::from_secs_f64(seconds.min(30.0))).unwrap_or(TimeDelta::zero())
}

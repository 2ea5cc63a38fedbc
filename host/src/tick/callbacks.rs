//! Callbacks that nobody's own process runs any more: taken in within the tick, sent out after its commit like tasks,
//! never waited for.

use chrono::{DateTime, TimeDelta, Utc};
use metadata::callbacks::calls::{self, Intent};
use metadata::dispatch::OpenCall;
use serde_json::json;
use sqlx::PgConnection;

use super::launch::backoff;
use super::{Error, Report};
use crate::clock;
use crate::executor::{Observation, Watch, Workload};
use crate::house::House;

/// Callbacks that run at once: so few that they leave the workers to tasks.
pub(crate) const AT_ONCE: u32 = 8;
/// A worker may spend this long on reporting the end of a callback.
const SILENCE: TimeDelta = TimeDelta::minutes(15);

/// What the tick found to be sent out and followed.
#[derive(Default)]
pub(super) struct Intents {
    unsent: Vec<Intent>,
    open: Vec<OpenCall>,
}

/// Handles the ends of calls, takes in what was asked for, and chooses what goes out.
pub(super) async fn intents(
    house: &House,
    db: &mut PgConnection,
    seen: &[Observation],
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<Intents, Error> {
    if !calls::any(db).await? {
        return Ok(Intents::default());
    }
    for observation in seen {
        let why = observation.fate.to_string();
        calls::call_ended(db, observation.dispatch_id, &why, now).await?;
    }
    let limit = house.environment.config().callback_timeout;
    let limit = TimeDelta::from_std(limit).unwrap_or(TimeDelta::days(1));
    calls::give_up_silent(db, now - limit - SILENCE).await?;
    report.problems.extend(calls::take_in(db).await?);
    Ok(Intents {
        unsent: calls::unsent(db, i64::from(AT_ONCE), now).await?,
        open: calls::open_calls(db).await?,
    })
}

/// Starts the calls; what can't be started now is tried again.
pub(super) async fn send(
    house: &House,
    watch: &mut Watch,
    intents: Intents,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    watch.follow(intents.open);
    let workloads = intents
        .unsent
        .iter()
        .map(|intent| Workload {
            dispatch_id: intent.dispatch_id,
            json: json!({
                "type": "RunCallback",
                "callback_id": intent.callback_id,
                "token": house.tokens.workload(intent.callback_id),
            })
            .to_string(),
            executor_config: serde_json::Value::Null,
        })
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
            Err(error) => {
                let failures = intents
                    .unsent
                    .iter()
                    .find(|intent| intent.dispatch_id == workload.dispatch_id)
                    .map_or(0, |intent| intent.failures);
                let not_before = clock::now() + backoff(failures, error.is_passing());
                calls::postpone(&house.pool, workload.dispatch_id, not_before).await?;
                report.problem(&error);
                report.wake_at(not_before);
            }
        }
    }
    report.callbacks_started += sent.len() as u64;
    calls::sent(&house.pool, &sent, now).await?;
    Ok(())
}

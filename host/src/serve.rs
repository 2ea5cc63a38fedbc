//! Keeping an environment awake: ticks on a timer and on events, the Execution API, the emulator. A finished task,
//! a command or a click in the UI asks for a tick at once; nothing sleeps in between and nothing polls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgListener;
use tokio::sync::Notify;

use crate::clock;
use crate::executor::Watch;
use crate::house::House;
use crate::tick;
use crate::timetables::Answering;
use crate::triggerer::OnDemand;

/// After a tick that failed because the database was away.
const RETRY: Duration = Duration::from_millis(500);
/// After a tick that left undone what was due.
const OVERDUE: Duration = Duration::from_secs(1);
/// While another tick is at work: what it leaves is this loop's.
const TAKEN: Duration = Duration::from_millis(100);
/// Whoever ticks until all is quiet waits this long for a call that could not be started; what will not pass by itself
/// is put off for longer.
const PUT_OFF: TimeDelta = TimeDelta::seconds(20);

/// A wish for a tick, from anywhere. Many wishes before the next tick are one.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Asks for a tick.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// As a function to hand out.
    #[must_use]
    pub fn asker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wake = self.clone();
        Arc::new(move || wake.ask())
    }

    async fn wait(&self) {
        self.0.notified().await;
    }
}

/// When to stop ticking.
pub enum Until<'a> {
    /// When the future ends: Ctrl-C, SIGTERM.
    Told(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
    /// When no call is open or to be tried again soon, and the last tick changed nothing; also when told.
    Quiet(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
    /// When the last tick changed nothing, whatever runs elsewhere; also when told.
    Settled(Pin<Box<dyn Future<Output = ()> + Send + 'a>>),
}

/// Why the ticking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Told,
    Quiet,
}

/// Whether somebody has to stay: a call is open, or one could not be started and is tried again soon.
///
/// # Errors
/// The database's errors.
pub async fn is_under_way(house: &House) -> Result<bool, metadata::Error> {
    metadata::dispatch::is_under_way(&house.pool, clock::now() + PUT_OFF).await
}

/// Ticks until it is told to stop or, if so asked, until nothing is under way. Every report of a tick that ran goes to
/// `tell`.
///
/// # Errors
/// Those of a tick that will not pass by themselves.
pub async fn run(
    house: &House,
    watch: &mut Watch,
    wake: &Wake,
    until: Until<'_>,
    tell: &mut (dyn FnMut(&tick::Report) + Send),
) -> Result<Ended, tick::Error> {
    let (mut told, quiet, follows_calls) = match until {
        Until::Told(told) => (told, false, true),
        Until::Quiet(told) => (told, true, true),
        Until::Settled(told) => (told, true, false),
    };
    let listening = tokio::spawn(listen(house.pool.clone(), wake.clone()));
    let interval = house.environment.config().interval;
    let mut triggerer = OnDemand::default();
    let mut answering = Answering::default();
    let ended = loop {
        let began = clock::now();
        let pause = match tick::run(house, watch).await {
            Ok(report) if report.outcome == tick::Outcome::LeaseTaken => {
                tracing::debug!("another tick is at work");
                TAKEN
            }
            Ok(report) => {
                tell(&report);
                answering
                    .follow(
                        &house.timetables,
                        &house.pool,
                        &house.serialized,
                        report.timetables_asked,
                        wake,
                    )
                    .await;
                if quiet {
                    let waits = follows_calls && watch.open() > 0;
                    if !waits && !answering.is_at_work() {
                        if !report.is_idle() {
                            // No call will announce its end: what else there is to do is seen at once.
                            wake.ask();
                        } else if !follows_calls || !is_under_way(house).await.unwrap_or(true) {
                            break Ok(Ended::Quiet);
                        }
                    }
                } else {
                    let waiting = report.task_instances_deferred
                        + report.asset_watchers
                        + report.callbacks_in_triggerer;
                    triggerer.follow(&house.environment, waiting).await;
                }
                until_next(&report, began, interval)
            }
            Err(error) if error.is_passing() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a tick failed");
                RETRY
            }
            Err(error) => break Err(error),
        };
        tokio::select! {
            () = wake.wait() => {}
            () = tokio::time::sleep(pause) => {}
            () = &mut told => break Ok(Ended::Told),
        }
    };
    listening.abort();
    answering.stop();
    triggerer.stop().await;
    ended
}

/// Until the next thing is due, but never longer than the interval and never in a tight loop: what was due when the tick
/// began and is due after it although it did nothing (a DAG whose run can't be made, say) is tried again after a second.
fn until_next(report: &tick::Report, began: DateTime<Utc>, interval: Duration) -> Duration {
    let Some(at) = report.next_wake else {
        return interval;
    };
    let least = match report.is_idle() && at < began {
        true => OVERDUE,
        false => Duration::from_millis(5),
    };
    let until = (at - clock::now()).to_std().unwrap_or(Duration::ZERO);
    until.max(least).min(interval)
}

/// Turns notifications of the database into wishes. Comes back when the connection was lost.
async fn listen(pool: sqlx::PgPool, wake: Wake) {
    loop {
        if let Err(error) = listen_once(&pool, &wake).await {
            tracing::debug!(%error, "listening on the database ended");
        }
        tokio::time::sleep(RETRY).await;
        // Something may have been missed.
        wake.ask();
    }
}

async fn listen_once(pool: &sqlx::PgPool, wake: &Wake) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(metadata::schema::WAKE_CHANNEL).await?;
    loop {
        listener.recv().await?;
        wake.ask();
    }
}

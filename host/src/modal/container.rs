//! What the functions of an environment do in their containers: one tick, the Execution API, the worker beside Modal's runtime.
//!
//! A container is known by the socket of its runtime: calls of Modal's API go through it and need no token.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use environment::Environment;
use environment::container::Settings;
use modal_api::{Client, Credentials, Resources};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::blueprint::{VOLUME, worker_secret_name};
use crate::clock;
use crate::executor::{Deployed, Watch};
use crate::house::{self, House};
use crate::local;
use crate::serve::{self, Until, Wake};
use crate::tick;

/// The function that ticks.
pub(crate) const SCHEDULER_TICK: &str = "scheduler_tick";
/// The server that workers report to.
pub(crate) const EXECUTION_API: &str = "execution_api";
/// The server with the UI.
pub(crate) const AIRFLOW_UI: &str = "airflow_ui";
/// A call is over by then, with what it stays for in the triggerer; Modal ends it after [`super::blueprint::TICK_TIMEOUT`].
const LONGEST_CALL: Duration = Duration::from_secs(270);
/// What is left of an interval when a call ends: for the start of the next one, and for what this one's start took.
const SPARE: Duration = Duration::from_secs(10);
/// The longest that a tick works at what is due; the rest is the next one's.
const LONGEST_WORK: Duration = Duration::from_secs(200);
/// Calls of the function that ticks that are looked at for one that waits: it is among the newest.
const NEWEST: u32 = 8;
/// Between two wishes for a tick: what ends together asks for one.
const PAUSE: Duration = Duration::from_millis(500);
/// Until it is looked again whether a call that seemed to wait has ticked: what Modal tells of calls may be old.
const LOOK: Duration = Duration::from_secs(2);
/// What clocks of two containers may differ by.
const SKEW: TimeDelta = TimeDelta::seconds(1);
/// After a wish that could not be sent.
const RETRY: Duration = Duration::from_secs(1);

/// Why a function can't do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    House(#[from] house::Error),
    #[error(transparent)]
    Tick(#[from] tick::Error),
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    #[error(transparent)]
    Local(#[from] local::Error),
    #[error(transparent)]
    Worker(#[from] supervisor::Error),
    #[error("serve the UI: the api-server ended by itself\n{0}")]
    UiEnded(String),
    #[error("listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// The caller's side of Modal's API, as this container.
pub(crate) fn client() -> Result<Client, modal_api::Error> {
    let url = std::env::var("MODAL_SERVER_URL")
        .map_err(|_| modal_api::Error::NotInContainer("MODAL_SERVER_URL"))?;
    Client::connect(url.parse()?, Credentials::container())
}

/// Modal's environment that this container is in, as its runtime says; empty is the default one.
fn own_environment() -> String {
    std::env::var("MODAL_ENVIRONMENT").unwrap_or_default()
}

/// What variants of `run_task` keep of it.
pub(crate) fn deployed(environment: &Environment, settings: &Settings) -> Deployed {
    let modal = &environment.config().modal;
    let mut secrets = vec![worker_secret_name(environment.name())];
    secrets.extend(modal.secrets.iter().cloned());
    Deployed {
        app: settings.app.clone(),
        environment: own_environment(),
        secrets,
        volumes: BTreeMap::from([(VOLUME.to_owned(), settings.volume.clone())]),
        resources: Resources {
            cpu: Some(modal.task_cpu),
            memory_mib: Some(modal.task_memory),
            ..Resources::default()
        },
        has_images: true,
        ..Deployed::default()
    }
}

/// Ticks until nothing is due. While something waits in the triggerer it stays until the next call of the schedule.
pub(crate) async fn tick(
    environment: Environment,
    progress: &dyn environment::Progress,
) -> Result<tick::Report, Error> {
    let began = Instant::now();
    let house = House::open(environment, progress).await?;
    let wake = Wake::default();
    let mut watch = Watch::new(Arc::clone(&house.executor), wake.asker());
    let mut total = tick::Report::default();
    // Nobody has watched since the last tick.
    let mut db = house.pool.acquire().await.map_err(metadata::Error::from)?;
    let open = metadata::dispatch::open_calls(&mut db).await?;
    drop(db);
    watch.look(open).await;
    let late = Box::pin(tokio::time::sleep(LONGEST_WORK));
    serve::run(
        &house,
        &mut watch,
        &wake,
        Until::Settled(late),
        &mut |report| {
            total.add(report);
        },
    )
    .await?;
    let waiting =
        total.task_instances_deferred + total.asset_watchers + total.callbacks_in_triggerer;
    let until = began + stay(house.environment.config().interval);
    if waiting > 0 && Instant::now() < until && !is_next_still_waiting(&house.executor).await {
        let over = Box::pin(tokio::time::sleep_until(until));
        serve::run(
            &house,
            &mut watch,
            &wake,
            Until::Told(over),
            &mut |report| {
                total.add(report);
            },
        )
        .await?;
    }
    Ok(total)
}

/// How long after its beginning a call ends at the latest if something waits in the triggerer. Calls of the schedule come one
/// interval after another and run one at a time: were they longer, they would pile up.
fn stay(interval: Duration) -> Duration {
    interval.saturating_sub(SPARE).min(LONGEST_CALL)
}

/// Whether a call that has not begun will tick as soon as there is room. It sees all that is committed by now. A hint: the call
/// may have begun meanwhile.
async fn is_next_waiting(executor: &crate::executor::Executor) -> bool {
    let waiting = executor.is_call_waiting(SCHEDULER_TICK, NEWEST).await;
    waiting.unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "whether a tick waits is not known");
        false
    })
}

/// Whether one waits that is no stale sight of a call that has begun: of this one, say.
async fn is_next_still_waiting(executor: &crate::executor::Executor) -> bool {
    if !is_next_waiting(executor).await {
        return false;
    }
    tokio::time::sleep(LOOK).await;
    is_next_waiting(executor).await
}

/// Answers the Execution API until `told`. Each commit that ends something asks for a tick.
pub(crate) async fn execution_api(
    environment: Environment,
    address: SocketAddr,
    told: impl Future<Output = ()>,
    progress: &dyn environment::Progress,
) -> Result<(), Error> {
    let house = House::open(environment, progress).await?;
    let listener =
        std::net::TcpListener::bind(address).map_err(|source| Error::Listen { address, source })?;
    let bell = Arc::new(Notify::new());
    let asking = tokio::spawn(ask_for_ticks(
        house.executor.clone(),
        house.pool.clone(),
        Arc::clone(&bell),
    ));
    let closing = CancellationToken::new();
    let wake = move || bell.notify_one();
    let api = local::serve_api(&house, listener, Arc::new(wake), closing.clone()).await?;
    told.await;
    closing.cancel();
    // Requests in progress end or are repeated by their worker.
    let _ = tokio::time::timeout(local::DRAIN, api).await;
    asking.abort();
    house.pool.close().await;
    Ok(())
}

/// A database that is away is no answer: it is asked again, or the call is made.
async fn has_ticked(pool: &sqlx::PgPool, since: DateTime<Utc>) -> bool {
    let last = metadata::jobs::last_tick(pool).await.unwrap_or_default();
    last.is_some_and(|began| began > since)
}

/// Calls the function that ticks when it is wished for, and not more often than makes sense. A wish is kept until it was sent or a
/// tick has begun since.
async fn ask_for_ticks(
    executor: Arc<crate::executor::Executor>,
    pool: sqlx::PgPool,
    bell: Arc<Notify>,
) {
    loop {
        bell.notified().await;
        let wished = clock::now();
        let mut is_served = false;
        while !is_served && is_next_waiting(&executor).await {
            // What it may have begun meanwhile is to be seen once it has committed.
            for _ in 0..2 {
                tokio::time::sleep(LOOK).await;
                is_served = is_served || has_ticked(&pool, wished + SKEW).await;
            }
        }
        if !is_served {
            while let Err(error) = executor.call_plainly(SCHEDULER_TICK, Uuid::new_v4()).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot ask for a tick"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves the real UI until `told`. Its password goes to nobody's log.
pub(crate) async fn ui(
    environment: &Environment,
    address: SocketAddr,
    told: impl Future<Output = ()>,
) -> Result<(), Error> {
    let url = address_of(environment, AIRFLOW_UI).await?;
    let mut ui =
        environment::ui::serve_at(environment, address, url, &environment::progress::Silent)
            .await
            .map_err(house::Error::from)?;
    let ended = tokio::select! {
        () = told => false,
        () = ui.ended() => true,
    };
    let log = ui.log.clone();
    ui.stop().await;
    if ended {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(8).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        return Err(Error::UiEnded(last));
    }
    Ok(())
}

/// Where a server of the environment's app is reached.
pub(crate) async fn address_of(environment: &Environment, function: &str) -> Result<String, Error> {
    let app = environment.container().map_or("", |settings| &settings.app);
    let found = async {
        let handle = client()?
            .function_get(app, function, &own_environment())
            .await?;
        match handle.web_url {
            url if url.is_empty() => Err(modal_api::Error::Unexpected(format!(
                "{function} has no address"
            ))),
            url => Ok(url),
        }
    };
    found
        .await
        .map_err(|error| house::Error::Modal(error).into())
}

/// Runs tasks that Modal's runtime hands over at a socket.
pub(crate) async fn worker(
    environment: &Environment,
    socket: &Path,
    progress: &dyn environment::Progress,
) -> Result<(), Error> {
    let config = local::worker_config(environment, progress).await?;
    supervisor::bridge::run(config, socket).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modal::blueprint::TICK_TIMEOUT;

    #[test]
    fn a_call_ends_before_the_next_one_is_due_and_before_modal_ends_it() {
        for interval in environment::SHORTEST_INTERVAL_ON_MODAL.as_secs()..=86_400 {
            let interval = Duration::from_secs(interval);
            let stay = stay(interval);
            assert!(stay + SPARE <= interval, "{interval:?}");
            assert!(stay >= SPARE, "no time for the triggerer: {interval:?}");
        }
        assert!(LONGEST_CALL + SPARE < TICK_TIMEOUT);
        assert!(LONGEST_WORK < LONGEST_CALL);
    }
}

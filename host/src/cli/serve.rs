//! `serve`.

use std::process::ExitCode;
use std::sync::Arc;

use environment::progress::Stderr;
use environment::{Placement, Progress, postgres};

use super::arguments::ServeArguments;
use super::context;
use super::exit::hinted;
use crate::executor::Watch;
use crate::house::House;
use crate::local::{Local, take_seat_in_time};
use crate::serve::{self, Until, Wake};

pub(super) async fn serve(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let environment = context::environment(&arguments.env)?;
    let name = environment.name().to_owned();
    if environment.config().placement == Placement::Modal {
        return Err(hinted(
            format!("serve environment {name} on this machine: it is on Modal"),
            "there its functions run by themselves; `modalflow-host tick` asks for a tick at once",
        ));
    }
    let Some(seat) = take_seat_in_time(&environment).await? else {
        return Err(hinted(
            format!("environment {name} is being served already"),
            "one serve is enough; stop the other one first, or use it",
        ));
    };
    let mut house = House::open(environment, &Stderr).await?;
    let wake = Wake::default();
    let local = Local::start(&mut house, seat, wake.asker(), &Stderr).await?;
    let mut files = super::dags::follow(&house.environment, wake.clone()).await?;
    Stderr.note(&format!(
        "serving environment {name}, Execution API at {}; Ctrl-C stops, running tasks go on",
        house.environment.execution_api_url()
    ));
    let mut watch = Watch::new(Arc::clone(&house.executor), wake.asker());
    let told = Box::pin(told_to_stop());
    let served = serve::run(
        &house,
        &mut watch,
        &wake,
        Until::Told(told),
        &mut |report| {
            if !report.is_idle() {
                tracing::info!(%report, "tick");
            }
        },
    )
    .await;
    files.abort_all();
    Stderr.note(match watch.open() {
        0 => "stopping",
        _ => "stopping; tasks under way end by themselves and report to the next serve",
    });
    let idle = watch.open() == 0;
    drop(watch);
    local.leave().await?;
    served?;
    let House {
        environment, pool, ..
    } = house;
    pool.close().await;
    if idle {
        postgres::stop_if_unused(&environment).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends on Ctrl-C or SIGTERM.
pub(super) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

//! `tick`.

use std::process::ExitCode;
use std::sync::Arc;

use environment::progress::Stderr;

use super::arguments::{Format, TickArguments};
use super::{context, output};
use crate::executor::Watch;
use crate::house::House;
use crate::local::{Local, Seat, is_served, take_seat};
use crate::modal::container;
use crate::modal::remote::Remote;
use crate::serve::{self, Ended, Until, Wake};
use crate::tick;

pub(super) async fn tick(arguments: TickArguments) -> anyhow::Result<ExitCode> {
    let environment = context::environment(&arguments.env)?;
    if let Some(remote) = Remote::of(&environment).await? {
        let call_id = remote.tick().await?;
        tell(&format!("asked for a tick on Modal: call {call_id}"));
        return Ok(ExitCode::SUCCESS);
    }
    super::dags::sync_changed(&environment).await?;
    if environment.container().is_some() {
        let total = container::tick(environment, &Stderr).await?;
        return told(&total, arguments.output.output);
    }
    let mut house = House::open(environment, &Stderr).await?;
    let mut total = tick::Report::default();
    loop {
        let ended = match take_seat(&house.environment)? {
            None => as_guest(&house, &mut total).await?,
            Some(seat) => as_host(&mut house, seat, &mut total).await?,
        };
        // Between two hosts a call may have started that neither has seen. Whoever finds it beside a free seat follows it.
        if ended == Ended::Told
            || !serve::is_under_way(&house).await?
            || is_served(&house.environment)?
        {
            break;
        }
    }
    if total.task_instances_deferred > 0 {
        tell(&format!(
            "{} deferred: what they wait for is watched by `modalflow-host serve`",
            total.task_instances_deferred
        ));
    }
    told(&total, arguments.output.output)
}

/// One tick beside whoever serves, who follows the calls that it starts.
async fn as_guest(house: &House, total: &mut tick::Report) -> anyhow::Result<Ended> {
    let mut watch = Watch::new(Arc::clone(&house.executor), Arc::new(|| {}));
    total.add(&tick::run(house, &mut watch).await?);
    metadata::dags::ask_for_tick(&house.pool).await?;
    Ok(Ended::Quiet)
}

/// Serves until nothing is under way.
async fn as_host(house: &mut House, seat: Seat, total: &mut tick::Report) -> anyhow::Result<Ended> {
    let wake = Wake::default();
    let local = Local::start(house, seat, wake.asker(), &Stderr).await?;
    let mut watch = Watch::new(Arc::clone(&house.executor), wake.asker());
    let told = Box::pin(super::serve::told_to_stop());
    let ended = serve::run(
        house,
        &mut watch,
        &wake,
        Until::Quiet(told),
        &mut |report| {
            total.add(report);
        },
    )
    .await?;
    local.leave().await?;
    Ok(ended)
}

fn told(total: &tick::Report, format: Format) -> anyhow::Result<ExitCode> {
    match format {
        Format::Table => output::print(&format!("{total}\n"))?,
        format => output::object(total, format)?,
    }
    for problem in &total.problems {
        tell(&format!("problem: {problem}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn tell(text: &str) {
    eprintln!("{text}");
}

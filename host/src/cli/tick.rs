//! `tick`.

use std::process::ExitCode;
use std::sync::Arc;

use environment::progress::Stderr;

use super::arguments::{Format, TickArguments};
use super::{context, output};
use crate::executor::Watch;
use crate::house::House;
use crate::local::{Local, take_seat};
use crate::modal::container;
use crate::modal::remote::Remote;
use crate::serve::{self, Until, Wake};
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
    let seat = take_seat(&environment)?;
    let mut house = House::open(environment, &Stderr).await?;
    let mut total = tick::Report::default();
    match seat {
        None => {
            let mut watch = Watch::new(Arc::clone(&house.executor), Arc::new(|| {}));
            total.add(&tick::run(&house, &mut watch).await?);
            // Whoever serves follows the calls that were started.
            metadata::dags::ask_for_tick(&house.pool).await?;
        }
        Some(seat) => {
            let wake = Wake::default();
            let local = Local::start(&mut house, seat, wake.asker(), &Stderr).await?;
            let mut watch = Watch::new(Arc::clone(&house.executor), wake.asker());
            let told = Box::pin(super::serve::told_to_stop());
            serve::run(
                &house,
                &mut watch,
                &wake,
                Until::Quiet(told),
                &mut |report| {
                    total.add(report);
                },
            )
            .await?;
            local.leave().await?;
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

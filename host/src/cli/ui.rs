//! `ui`.

use std::process::ExitCode;

use environment::progress::Stderr;
use environment::{Progress, ui};

use super::arguments::UiArguments;
use super::{context, output};

pub(super) async fn ui(arguments: UiArguments) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.env).await?;
    let mut ui = ui::serve(&environment, arguments.port, &Stderr).await?;
    output::print(&format!(
        "url: {}\nuser: {}\npassword: {}\n",
        ui.url, ui.user, ui.password
    ))?;
    if crate::local::take_seat(&environment)?.is_some() {
        Stderr.note(&format!(
            "nobody serves this environment: what is started in the UI waits for `modalflow-host serve --env {}`",
            environment.name()
        ));
    }
    Stderr.note("Ctrl-C closes the UI");
    let ended = tokio::select! {
        () = super::serve::told_to_stop() => false,
        () = ui.ended() => true,
    };
    let log = ui.log.clone();
    ui.stop().await;
    pool.close().await;
    if ended {
        anyhow::bail!(
            "the api-server ended by itself\nhint: its log is {}",
            log.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

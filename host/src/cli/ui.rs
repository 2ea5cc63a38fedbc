//! `ui`.

use std::process::ExitCode;

use anyhow::Context;
use environment::progress::Stderr;
use environment::{Progress, ui};

use super::arguments::UiArguments;
use super::serve::told_to_stop;
use super::{context, output};
use crate::modal::container;

pub(super) async fn ui(arguments: UiArguments) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.env).await?;
    if environment.container().is_some() {
        pool.close().await;
        let port = arguments.port.context("a container is told its port")?;
        container::ui(&environment, (arguments.host, port).into(), told_to_stop()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(there) = &environment.state().modal {
        output::print(&format!(
            "url: {}\nuser: {}\npassword: {}\n",
            there.ui_url,
            environment::airflow::UI_USER,
            environment.secrets().ui_password
        ))?;
        Stderr.note(
            "it is on Modal and opens when it is visited; the first visit takes half a minute",
        );
        pool.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let mut ui = ui::serve(&environment, arguments.port, &Stderr).await?;
    output::print(&format!(
        "url: {}\nuser: {}\npassword: {}\n",
        ui.url, ui.user, ui.password
    ))?;
    if !crate::local::is_served(&environment)? {
        Stderr.note(&format!(
            "nobody serves this environment: what is started in the UI waits for `modalflow-host serve --env {}`",
            environment.name()
        ));
    }
    Stderr.note("Ctrl-C closes the UI");
    let ended = tokio::select! {
        () = told_to_stop() => false,
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

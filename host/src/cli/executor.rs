//! `executor`.

use std::process::ExitCode;

use anyhow::Context;

use super::arguments::ExecutorArguments;
use super::serve::told_to_stop;
use crate::hybrid;

pub(super) async fn executor(arguments: ExecutorArguments) -> anyhow::Result<ExitCode> {
    let modal = modal_api::Config::load().context("read Modal's settings")?;
    let environment = if arguments.environment.is_empty() {
        modal.environment.clone()
    } else {
        arguments.environment
    };
    let function = hybrid::Function {
        name: arguments.function,
        deployed: hybrid::deployed(&arguments.app, &environment, &arguments.deployed)
            .context("read --deployed")?,
    };
    let settings = hybrid::Settings {
        socket: arguments.socket,
        parent: arguments.parent,
        modal,
        function,
    };
    hybrid::serve(settings, told_to_stop()).await?;
    Ok(ExitCode::SUCCESS)
}

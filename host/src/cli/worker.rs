//! Commands that other processes of modalflow start.

use std::process::ExitCode;

use environment::progress::Stderr;
use environment::{Home, postgres};
use supervisor::{WorkerConfig, worker};

use super::arguments::{EnvArguments, ExecutionApiArguments, WorkerArguments};
use super::context;
use crate::modal::container;

pub(super) async fn worker(arguments: WorkerArguments) -> anyhow::Result<ExitCode> {
    if let (Some(socket), Some(env)) = (arguments.bridge, arguments.env) {
        let environment = context::environment(&EnvArguments { env })?;
        container::worker(&environment, &socket, &Stderr).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = WorkerConfig::from_environment()?;
    worker::run(config).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn execution_api(arguments: ExecutionApiArguments) -> anyhow::Result<ExitCode> {
    let environment = context::environment(&arguments.env)?;
    let address = (arguments.host, arguments.port).into();
    let told = super::serve::told_to_stop();
    container::execution_api(environment, address, told, &Stderr).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn postgres_keeper(arguments: EnvArguments) -> anyhow::Result<ExitCode> {
    postgres::keep(&Home::from_env()?, &arguments.env).await?;
    Ok(ExitCode::SUCCESS)
}

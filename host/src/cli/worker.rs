//! Commands that other processes of modalflow start.

use std::process::ExitCode;

use environment::{Home, postgres};
use supervisor::{WorkerConfig, worker};

use super::arguments::EnvArguments;

pub(super) async fn worker() -> anyhow::Result<ExitCode> {
    let config = WorkerConfig::from_environment()?;
    worker::run(config).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn postgres_keeper(arguments: EnvArguments) -> anyhow::Result<ExitCode> {
    postgres::keep(&Home::from_env()?, &arguments.env).await?;
    Ok(ExitCode::SUCCESS)
}

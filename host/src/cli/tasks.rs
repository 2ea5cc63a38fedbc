//! `tasks list`.

use std::process::ExitCode;

use super::arguments::RunArguments;
use super::context;
use super::output::{self, Column};

pub(super) const COLUMNS: &[Column] = &[
    ("TASK", "task_id"),
    ("MAP", "map_index"),
    ("STATE", "state"),
    ("TRY", "try_number"),
    ("FAULTS", "platform_faults"),
    ("OPERATOR", "operator"),
    ("START", "start_date"),
    ("SECONDS", "duration"),
];

pub(super) async fn list(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let (_, pool) = context::database(&arguments.dag.env).await?;
    let run_id = context::run_id(&pool, &arguments.dag, arguments.run_id.as_deref()).await?;
    let rows = metadata::listing::task_instances(&pool, &arguments.dag.dag_id, &run_id).await?;
    output::listing(&rows, COLUMNS, arguments.output.output)?;
    Ok(ExitCode::SUCCESS)
}

//! `runs list`, `runs show`.

use std::process::ExitCode;

use metadata::listing::{self, RunFilter};
use serde_json::json;

use super::arguments::{Format, RunArguments, RunsListArguments};
use super::output::{self, Column};
use super::{context, tasks};

pub(super) const COLUMNS: &[Column] = &[
    ("DAG", "dag_id"),
    ("RUN", "run_id"),
    ("STATE", "state"),
    ("TYPE", "run_type"),
    ("LOGICAL DATE", "logical_date"),
    ("START", "start_date"),
    ("SECONDS", "duration"),
];

pub(super) async fn list(arguments: RunsListArguments) -> anyhow::Result<ExitCode> {
    let (_, pool) = context::database(&arguments.env).await?;
    if let Some(dag_id) = &arguments.dag_id {
        let dag = super::arguments::DagArguments {
            env: arguments.env.clone(),
            dag_id: dag_id.clone(),
        };
        context::known_dag(&pool, &dag).await?;
    }
    let filter = RunFilter {
        dag_id: arguments.dag_id,
        run_id: None,
        state: arguments.state,
        limit: arguments.limit,
    };
    let rows = listing::runs(&pool, &filter).await?;
    output::listing(&rows, COLUMNS, arguments.output.output)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let (_, pool) = context::database(&arguments.dag.env).await?;
    let run_id = context::run_id(&pool, &arguments.dag, arguments.run_id.as_deref()).await?;
    let filter = RunFilter {
        dag_id: Some(arguments.dag.dag_id.clone()),
        run_id: Some(run_id.clone()),
        limit: 1,
        ..RunFilter::default()
    };
    let runs = listing::runs(&pool, &filter).await?;
    let tasks = listing::task_instances(&pool, &arguments.dag.dag_id, &run_id).await?;
    let format = arguments.output.output;
    match format {
        Format::Table | Format::Plain => {
            output::listing(&runs, COLUMNS, format)?;
            output::print("\n")?;
            output::listing(&tasks, tasks::COLUMNS, format)?;
        }
        Format::Json | Format::Yaml => {
            let run = runs.into_iter().next();
            output::object(&json!({"run": run, "task_instances": tasks}), format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

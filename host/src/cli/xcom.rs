//! `xcom get`.

use std::process::ExitCode;

use plugin_host::{Stored, TaskKey, XcomCoordinate, path_part};

use super::arguments::XcomArguments;
use super::exit::hinted;
use super::{context, output};
use crate::modal::remote::Remote;
use crate::plugins;

/// A value larger than this is not printed but named.
const MOST: u64 = 1 << 30;

pub(super) async fn get(arguments: XcomArguments) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.dag.env).await?;
    let run_id = context::run_id(&pool, &arguments.dag, arguments.run_id.as_deref()).await?;
    let dag_id = &arguments.dag.dag_id;
    let rows = metadata::listing::xcoms(
        &pool,
        dag_id,
        &run_id,
        Some(&arguments.task_id),
        Some(&arguments.key),
    )
    .await?;
    let Some(row) = rows
        .into_iter()
        .find(|row| row.map_index == arguments.map_index)
    else {
        return Err(missing(&pool, &arguments, &run_id).await?);
    };
    let at = XcomCoordinate {
        task: TaskKey {
            dag_id: dag_id.clone(),
            run_id,
            task_id: row.task_id,
            map_index: row.map_index,
            try_number: 0,
        },
        key: row.key,
    };
    if let Some(mut remote) = Remote::of(&environment).await? {
        let task = &at.task;
        let path = format!(
            "xcom/{}/{}/{}",
            path_part(&task.dag_id),
            path_part(&task.run_id),
            path_part(&task.task_id)
        );
        remote.fetch(&environment.volume(), &path).await?;
    }
    let host = plugins::host(&environment)?;
    let backend = plugins::xcom_backend(&host, &environment).await?;
    let value = backend
        .get(&at, &Stored::from_column(row.value.unwrap_or_default()))
        .await?;
    let bytes = value.into_bytes(MOST).await?;
    output::print(&(String::from_utf8_lossy(&bytes).into_owned() + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Says which XComs there are instead.
async fn missing(
    pool: &sqlx::PgPool,
    arguments: &XcomArguments,
    run_id: &str,
) -> anyhow::Result<anyhow::Error> {
    let there = metadata::listing::xcoms(pool, &arguments.dag.dag_id, run_id, None, None).await?;
    let mut names: Vec<String> = there
        .iter()
        .map(|row| match row.map_index {
            -1 => format!("{}.{}", row.task_id, row.key),
            index => format!("{}[{index}].{}", row.task_id, row.key),
        })
        .collect();
    names.truncate(12);
    let hint = if names.is_empty() {
        "the run has no XComs".to_owned()
    } else {
        format!("the run has {}", names.join(", "))
    };
    Ok(hinted(
        format!(
            "there is no XCom {:?} of task {:?}{} in run {run_id:?}",
            arguments.key,
            arguments.task_id,
            if arguments.map_index >= 0 {
                format!(" [{}]", arguments.map_index)
            } else {
                String::new()
            },
        ),
        hint,
    ))
}

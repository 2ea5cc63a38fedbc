//! `logs`: the lines of one try, through the log-handler plugin.

use std::process::ExitCode;
use std::time::Duration;

use environment::Environment;
use metadata::listing::TaskRow;
use plugin_host::{LogHandler, LogRecord, TaskKey, path_part};
use sqlx::PgPool;

use super::arguments::LogsArguments;
use super::exit::hinted;
use super::{context, output};
use crate::modal::remote::Remote;
use crate::plugins;

/// Records of one page.
const PAGE: u32 = 500;
/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn logs(arguments: LogsArguments) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.dag.env).await?;
    let run_id = context::run_id(&pool, &arguments.dag, arguments.run_id.as_deref()).await?;
    if arguments.callbacks {
        return callbacks(&environment, &arguments, run_id).await;
    }
    let row = task_instance(&pool, &arguments, &run_id).await?;
    let latest = u32::try_from(row.try_number).unwrap_or(0);
    let try_number = arguments.try_number.unwrap_or(latest);
    if try_number == 0 || try_number > latest {
        let problem = format!("task {:?} has no try {try_number}", arguments.task_id);
        return Err(hinted(
            problem,
            match latest {
                0 => "it has not started yet".to_owned(),
                latest => format!("its latest try is {latest}"),
            },
        ));
    }
    let task = TaskKey {
        dag_id: arguments.dag.dag_id.clone(),
        run_id,
        task_id: arguments.task_id.clone(),
        map_index: arguments.map_index,
        try_number,
    };
    let mut remote = Remote::of(&environment).await?;
    let host = plugins::host(&environment)?;
    let handler = plugins::log_handler(&host, &environment).await?;
    let mut after = None;
    loop {
        // Looked at before the log is read: what a finished try wrote is then all there.
        let ended = has_ended(&pool, &arguments, &task).await?;
        fetch(&mut remote, &environment, &task).await?;
        let printed = print_from(&*handler, &task, &mut after, arguments.json).await?;
        if !arguments.follow || ended {
            if !printed
                && after.is_none()
                && try_number == latest
                && row.operator.as_deref() == Some("EmptyOperator")
            {
                return Err(hinted(
                    "the task has no log",
                    "an EmptyOperator ends without a worker",
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Brings the logs of a task over from Modal, if they are there.
async fn fetch(
    remote: &mut Option<Remote>,
    environment: &Environment,
    task: &TaskKey,
) -> anyhow::Result<()> {
    if let Some(remote) = remote {
        let path = format!(
            "logs/dag_id={}/run_id={}/task_id={}",
            path_part(&task.dag_id),
            path_part(&task.run_id),
            path_part(&task.task_id)
        );
        remote.fetch(&environment.volume(), &path).await?;
    }
    Ok(())
}

/// What the callbacks of a run have said; those of a lost try speak in the try's own log.
async fn callbacks(
    environment: &Environment,
    arguments: &LogsArguments,
    run_id: String,
) -> anyhow::Result<ExitCode> {
    let log = TaskKey {
        dag_id: arguments.dag.dag_id.clone(),
        run_id,
        task_id: metadata::callbacks::claims::LOG_OF_RUN.to_owned(),
        map_index: -1,
        try_number: 1,
    };
    fetch(&mut Remote::of(environment).await?, environment, &log).await?;
    let host = plugins::host(environment)?;
    let handler = plugins::log_handler(&host, environment).await?;
    if !print_from(&*handler, &log, &mut None, arguments.json).await? {
        return Err(hinted(
            format!("no callback of run {:?} has run", log.run_id),
            "on_success_callback and on_failure_callback of a DAG run after its run has ended; \
             callbacks of tasks are in the tasks' logs",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is there from `after` on; answers whether there was anything.
async fn print_from(
    handler: &dyn LogHandler,
    task: &TaskKey,
    after: &mut Option<String>,
    as_json: bool,
) -> anyhow::Result<bool> {
    let mut printed = false;
    loop {
        let page = match handler.read(task, after.clone(), PAGE).await {
            Ok(page) => page,
            Err(plugin_host::Error::NotFound { .. }) => return Ok(printed),
            Err(error) => return Err(error.into()),
        };
        let more = !page.records.is_empty();
        for record in &page.records {
            let line = if as_json {
                as_stored(record)
            } else {
                for_people(record)
            };
            output::print(&line)?;
            printed = true;
        }
        if page.next.is_some() {
            *after = page.next;
        }
        if !more {
            return Ok(printed);
        }
    }
}

fn as_stored(record: &LogRecord) -> String {
    let mut line = serde_json::Map::new();
    if let Some(timestamp) = &record.timestamp {
        line.insert("timestamp".to_owned(), timestamp.as_str().into());
    }
    if let Some(level) = &record.level {
        line.insert("level".to_owned(), level.as_str().into());
    }
    line.insert("event".to_owned(), record.event.as_str().into());
    if let Some(logger) = &record.logger {
        line.insert("logger".to_owned(), logger.as_str().into());
    }
    line.extend(record.fields.clone());
    serde_json::Value::Object(line).to_string() + "\n"
}

fn for_people(record: &LogRecord) -> String {
    let time = record
        .timestamp
        .as_deref()
        .map_or_else(String::new, |at| match at.get(11..23) {
            Some(time) => format!("{time} "),
            None => format!("{at} "),
        });
    let level = record
        .level
        .as_deref()
        .map_or_else(String::new, |level| format!("{:<7} ", level.to_uppercase()));
    let mut line = format!("{time}{level}{}", record.event);
    for trace in exceptions(record) {
        line.push_str("\n  ");
        line.push_str(&trace);
    }
    line.push('\n');
    line
}

/// `error_detail` of Airflow's log lines: a list of exceptions with their frames.
fn exceptions(record: &LogRecord) -> Vec<String> {
    let Some(details) = record
        .fields
        .get("error_detail")
        .and_then(|detail| detail.as_array())
    else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for detail in details {
        for frame in detail["frames"].as_array().into_iter().flatten() {
            let text = |name: &str| frame[name].as_str().unwrap_or("?").to_owned();
            lines.push(format!(
                "{}:{} in {}",
                text("filename"),
                frame["lineno"],
                text("name")
            ));
        }
        let text = |name: &str| detail[name].as_str().unwrap_or_default().to_owned();
        lines.push(format!("{}: {}", text("exc_type"), text("exc_value")));
    }
    lines
}

async fn task_instance(
    pool: &PgPool,
    arguments: &LogsArguments,
    run_id: &str,
) -> anyhow::Result<TaskRow> {
    let all = metadata::listing::task_instances(pool, &arguments.dag.dag_id, run_id).await?;
    let of_task: Vec<&TaskRow> = all
        .iter()
        .filter(|row| row.task_id == arguments.task_id)
        .collect();
    if let Some(row) = of_task
        .iter()
        .find(|row| row.map_index == arguments.map_index)
    {
        return Ok((*row).clone());
    }
    if of_task.is_empty() {
        let mut tasks: Vec<&str> = all.iter().map(|row| row.task_id.as_str()).collect();
        tasks.dedup();
        return Err(hinted(
            format!("run {run_id:?} has no task {:?}", arguments.task_id),
            format!("its tasks are {}", tasks.join(", ")),
        ));
    }
    Err(hinted(
        format!(
            "task {:?} has no instance with map index {}",
            arguments.task_id, arguments.map_index
        ),
        format!("it is mapped: --map-index 0 to {}", of_task.len() - 1),
    ))
}

async fn has_ended(
    pool: &PgPool,
    arguments: &LogsArguments,
    task: &TaskKey,
) -> anyhow::Result<bool> {
    let row = task_instance(pool, arguments, &task.run_id).await?;
    let is_over = matches!(
        row.state.as_deref(),
        Some("success" | "failed" | "skipped" | "up_for_retry" | "upstream_failed" | "removed")
    );
    Ok(is_over || u32::try_from(row.try_number).unwrap_or(0) > task.try_number)
}

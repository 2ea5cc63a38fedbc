//! `dags create`, `update`, `list`, `delete`, `pause`, `unpause`; and following the folder while `serve` works.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dags::{Mode, Outcome, SyncReport, Which};
use environment::progress::Stderr;
use environment::{Environment, Progress};
use serde::Serialize;
use tokio::task::JoinSet;

use super::arguments::{DagArguments, DagFilesArguments, Format, ListArguments};
use super::output::{self, Column};
use super::{context, exit};
use crate::modal::remote::Remote;
use crate::serve::Wake;
use crate::{clock, dag_files, house};

/// How long the parser and the writer stay warm after their last work.
const REST: Duration = Duration::from_secs(50);

pub(super) async fn create(arguments: DagFilesArguments) -> anyhow::Result<ExitCode> {
    install(arguments, Mode::Create).await
}

pub(super) async fn update(arguments: DagFilesArguments) -> anyhow::Result<ExitCode> {
    install(arguments, Mode::Update).await
}

/// A DAG that was brought in, as the commands show it.
#[derive(Debug, Serialize)]
struct Installed {
    dag_id: String,
    file: String,
    is_paused: bool,
    warnings: Vec<String>,
}

async fn install(arguments: DagFilesArguments, mode: Mode) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.env).await?;
    let mut remote = Remote::of(&environment).await?;
    if let Some(remote) = &mut remote {
        take_over(remote, &environment).await?;
    }
    let folder = dag_files::open(&environment, pool.clone(), &Stderr).await?;
    let step = Stderr.step("validating DAG files");
    let report = folder
        .install(&arguments.files, mode, &|progress| {
            step.detail(&describe(progress))
        })
        .await?;
    drop(step);
    match &mut remote {
        Some(remote) => {
            let step = Stderr.step("uploading DAG files");
            let files: Vec<PathBuf> = report
                .files
                .iter()
                .map(|file| environment.dags_dir().join(&file.path))
                .collect();
            remote.put(&environment.volume(), &files).await?;
            drop(step);
            remote.tick().await?;
        }
        None => metadata::dags::ask_for_tick(&pool).await?,
    }
    let known = metadata::dags::list(&pool, true).await?;
    let mut rows = Vec::new();
    for file in &report.files {
        let (Outcome::Parsed { dag_ids } | Outcome::Unchanged { dag_ids, .. }) = &file.outcome
        else {
            continue;
        };
        for dag_id in dag_ids {
            rows.push(Installed {
                dag_id: dag_id.clone(),
                file: file.path.clone(),
                is_paused: known
                    .iter()
                    .any(|row| row.dag_id == *dag_id && row.is_paused),
                warnings: file.warnings.clone(),
            });
        }
    }
    output::listing(
        &rows,
        &[("DAG", "dag_id"), ("FILE", "file"), ("PAUSED", "is_paused")],
        arguments.output.output,
    )?;
    warn(&report);
    if rows.iter().any(|row| row.is_paused) {
        Stderr.note(&format!(
            "new DAGs start paused, as in Airflow: modalflow-host dags unpause --env {} --dag-id ID",
            environment.name()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(step: dags::Step) -> String {
    match step {
        dags::Step::StartingParser => "starting Python".to_owned(),
        dags::Step::Parsed { done, of } => format!("{done} of {of} parsed"),
        dags::Step::Writing { files } => format!("writing {files} files to the database"),
    }
}

fn warn(report: &SyncReport) {
    for file in &report.files {
        for warning in &file.warnings {
            Stderr.note(&format!("warning: {}: {warning}", file.path));
        }
    }
    for wall in &report.missing_walls {
        Stderr.note(&format!(
            "warning: the DAG parser works without {wall} on this kernel"
        ));
    }
}

const COLUMNS: &[Column] = &[
    ("DAG", "dag_id"),
    ("FILE", "file"),
    ("SCHEDULE", "schedule"),
    ("PAUSED", "is_paused"),
    ("NEXT RUN", "next_dagrun"),
    ("IMPORT ERROR", "has_import_errors"),
];

pub(super) async fn list(arguments: ListArguments) -> anyhow::Result<ExitCode> {
    let (_, pool) = context::database(&arguments.env).await?;
    let rows = metadata::dags::list(&pool, false).await?;
    output::listing(&rows, COLUMNS, arguments.output.output)?;
    let broken = metadata::dags::import_errors(&pool).await?;
    for (file, error) in &broken {
        let last = error
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("");
        let text = match arguments.output.output {
            Format::Table => error.trim_end().replace('\n', "\n  "),
            Format::Json | Format::Yaml | Format::Plain => last.to_owned(),
        };
        Stderr.note(&format!("import error: {file}: {text}"));
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::MENDABLE)
    })
}

pub(super) async fn delete(arguments: DagArguments) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.env).await?;
    context::known_dag(&pool, &arguments).await?;
    let mut remote = Remote::of(&environment).await?;
    if let Some(remote) = &mut remote {
        take_over(remote, &environment).await?;
    }
    let folder = dag_files::open(&environment, pool, &Stderr).await?;
    let step = Stderr.step("removing the DAG");
    let deleted = folder.delete(&arguments.dag_id).await?;
    if let Some(remote) = &mut remote {
        remote.remove(&format!("dags/{}", deleted.path)).await?;
        remote.tick().await?;
    }
    drop(step);
    Stderr.note(&format!(
        "removed {}; the runs of DAG {:?} stay in the database",
        deleted.path, arguments.dag_id
    ));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn set_paused(arguments: DagArguments, paused: bool) -> anyhow::Result<ExitCode> {
    let (environment, pool) = context::database(&arguments.env).await?;
    let dag_id = &arguments.dag_id;
    let word = if paused { "paused" } else { "unpaused" };
    match metadata::dags::set_paused(&pool, dag_id, paused, clock::now()).await? {
        None => {
            context::known_dag(&pool, &arguments).await?;
        }
        Some(true) => Stderr.note(&format!("DAG {dag_id:?} is {word}")),
        Some(false) => Stderr.note(&format!("DAG {dag_id:?} was {word} already")),
    }
    context::ask_for_tick(&environment, &pool).await?;
    Ok(ExitCode::SUCCESS)
}

/// Makes our copy of the DAG folder what the volume on Modal holds: others may have changed it.
async fn take_over(remote: &mut Remote, environment: &Environment) -> anyhow::Result<()> {
    let _step = Stderr.step("looking at the volume");
    for folder in ["dags", "plugins"] {
        remote.mirror(&environment.volume(), folder).await?;
    }
    Ok(())
}

/// Takes in what changed in the folder since the last look.
pub(super) async fn sync_changed(environment: &Environment) -> anyhow::Result<()> {
    let pool = house::connect(environment, &Stderr).await?;
    let folder = dag_files::open(environment, pool, &Stderr).await?;
    let report = folder.sync(Which::Changed, &dags::quiet).await?;
    for (file, message) in report.failures() {
        tracing::warn!(file, message, "a DAG file does not import");
    }
    Ok(())
}

/// While `serve` works: looks at the folder now and on every interval, beside the ticks and never in their way.
pub(super) async fn follow(environment: &Environment, wake: Wake) -> anyhow::Result<JoinSet<()>> {
    let pool = house::connect(environment, &Stderr).await?;
    let folder = dag_files::open(environment, pool, &Stderr).await?;
    let interval = environment.config().interval;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            match folder.sync(Which::Changed, &dags::quiet).await {
                Ok(report) if report.files.iter().all(is_unchanged) => {}
                Ok(report) => {
                    for (file, message) in report.failures() {
                        tracing::warn!(file, message, "a DAG file does not import");
                    }
                    wake.ask();
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look at the DAG folder"
                    );
                }
            }
            folder.rest(REST).await;
            tokio::time::sleep(interval).await;
        }
    });
    Ok(tasks)
}

fn is_unchanged(file: &dags::FileReport) -> bool {
    matches!(file.outcome, Outcome::Unchanged { .. })
}

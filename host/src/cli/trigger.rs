//! `dags trigger`.

use std::process::ExitCode;

use anyhow::Context;
use dags::timetables::ManualQuestion;
use metadata::dag_runs::{Inserted, Origin};
use model::{DagRunTriggeredBy, DagRunType};
use scheduler::runs::ManualRun;
use serde_json::Value;

use super::arguments::TriggerArguments;
use super::exit::hinted;
use super::{context, output, run_wait};
use crate::{clock, tick, timetables};

pub(super) async fn trigger(arguments: TriggerArguments) -> anyhow::Result<ExitCode> {
    let conf = conf(arguments.conf.as_deref())?;
    let (environment, pool) = context::database(&arguments.dag.env).await?;
    let dag_id = &arguments.dag.dag_id;
    context::known_dag(&pool, &arguments.dag).await?;
    let row = metadata::dags::find(&pool, dag_id)
        .await?
        .context("the DAG is there")?;
    if row.is_stale || row.has_import_errors {
        return Err(hinted(
            format!("DAG {dag_id:?} can't run: its file is gone or could not be imported"),
            format!(
                "modalflow-host dags list --env {} shows why",
                environment.name()
            ),
        ));
    }
    let serialized = metadata::serialized::SerializedDags::default();
    let now = clock::now();
    let mut tx = pool.begin().await.context("open a transaction")?;
    let stored = serialized
        .latest_of(&mut tx, dag_id)
        .await?
        .with_context(|| format!("DAG {dag_id:?} has not been serialized yet"))?;
    let question = ManualQuestion {
        run_type: DagRunType::Manual.to_string(),
        run_after: now,
        interval_at: arguments.logical_date.map(|_| now),
        needs_name: arguments.run_id.is_none(),
    };
    // Nothing is locked yet, and nothing waits for Python.
    let told = timetables::Helper::new(&environment)
        .manual(&stored.dag, question)
        .await?;
    let wanted = ManualRun {
        run_id: arguments
            .run_id
            .clone()
            .or_else(|| told.as_ref()?.run_id.clone()),
        logical_date: arguments.logical_date,
        data_interval: told.and_then(|told| told.start.zip(told.end)),
        run_after: Some(now),
        conf,
        run_type: DagRunType::Manual,
        triggered_by: DagRunTriggeredBy::Cli,
        triggering_user_name: None,
        partition_key: arguments.partition_key.clone(),
    };
    let run = scheduler::runs::manual(&stored.dag, wanted, &tick::suffix(), now)?;
    let origin = Origin {
        dag_version_id: stored.dag_version_id,
        creating_job_id: None,
    };
    if metadata::dag_runs::insert(&mut tx, &run, &origin, now).await? == Inserted::Exists {
        return Err(hinted(
            format!(
                "DAG {dag_id:?} has a run {:?} or a run of that logical date already",
                run.run_id
            ),
            format!(
                "choose another --run-id or --logical-date; modalflow-host runs list --env {} --dag-id {dag_id}",
                environment.name()
            ),
        ));
    }
    tx.commit().await.context("commit the run")?;
    context::ask_for_tick(&environment, &pool).await?;
    if row.is_paused {
        tell(&format!(
            "DAG {dag_id:?} is paused: the run stays queued until `modalflow-host dags unpause --env {} --dag-id {dag_id}`",
            environment.name()
        ));
    }
    let mut code = ExitCode::SUCCESS;
    if arguments.wait {
        if row.is_paused {
            return Err(hinted(
                format!(
                    "the run {:?} was made, but waiting for it would never end",
                    run.run_id
                ),
                format!(
                    "modalflow-host dags unpause --env {} --dag-id {dag_id}",
                    environment.name()
                ),
            ));
        }
        code = run_wait::until_ended(environment, &pool, dag_id, &run.run_id).await?;
    }
    let filter = metadata::listing::RunFilter {
        dag_id: Some(dag_id.clone()),
        run_id: Some(run.run_id.clone()),
        limit: 1,
        ..Default::default()
    };
    let rows = metadata::listing::runs(&pool, &filter).await?;
    output::listing(&rows, super::runs::COLUMNS, arguments.output.output)?;
    Ok(code)
}

fn conf(text: Option<&str>) -> anyhow::Result<Value> {
    let Some(text) = text else {
        return Ok(Value::Object(serde_json::Map::new()));
    };
    let hint = r#"for example --conf '{"city": "Oslo"}'"#;
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(hinted("--conf is not a JSON object", hint)),
        Err(error) => Err(hinted(format!("--conf is not JSON: {error}"), hint)),
    }
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn tell(text: &str) {
    eprintln!("{text}");
}

//! What commands start from: the home, an environment, its database.

use anyhow::Context;
use environment::progress::Stderr;
use environment::{Environment, Home};
use sqlx::PgPool;

use super::arguments::{DagArguments, EnvArguments};
use super::exit::hinted;
use crate::house;
use crate::modal::remote::Remote;

/// Opens the environment that the arguments name; in a container on Modal, the one that it belongs to.
pub(super) fn environment(arguments: &EnvArguments) -> anyhow::Result<Environment> {
    let home = Home::from_env()?;
    if environment::container::is_here() {
        let here = Environment::in_container(&home)?;
        anyhow::ensure!(
            here.name() == arguments.env,
            "this container belongs to environment {}",
            here.name()
        );
        return Ok(here);
    }
    Ok(Environment::open(&home, &arguments.env)?)
}

/// Opens it and connects to its database, starting it if it sleeps.
pub(super) async fn database(arguments: &EnvArguments) -> anyhow::Result<(Environment, PgPool)> {
    let environment = environment(arguments)?;
    let pool = house::connect(&environment, &Stderr).await?;
    Ok((environment, pool))
}

/// Has the environment look at what has changed: whoever serves it here, or its function on Modal.
pub(super) async fn ask_for_tick(environment: &Environment, pool: &PgPool) -> anyhow::Result<()> {
    match Remote::of(environment).await? {
        Some(remote) => {
            remote.tick().await?;
        }
        None => metadata::dags::ask_for_tick(pool).await?,
    }
    Ok(())
}

/// The run that is meant: the one named, which must exist, or the newest of the DAG.
pub(super) async fn run_id(
    pool: &PgPool,
    dag: &DagArguments,
    run_id: Option<&str>,
) -> anyhow::Result<String> {
    known_dag(pool, dag).await?;
    let dag_id = &dag.dag_id;
    let Some(run_id) = run_id else {
        let newest = metadata::listing::newest_run(pool, dag_id).await?;
        return newest.ok_or_else(|| {
            hinted(
                format!("DAG {dag_id:?} has no runs"),
                format!(
                    "modalflow-host dags trigger --env {} --dag-id {dag_id}",
                    dag.env.env
                ),
            )
        });
    };
    let filter = metadata::listing::RunFilter {
        dag_id: Some(dag_id.clone()),
        run_id: Some(run_id.to_owned()),
        limit: 1,
        ..Default::default()
    };
    if metadata::listing::runs(pool, &filter).await?.is_empty() {
        return Err(hinted(
            format!("DAG {dag_id:?} has no run {run_id:?}"),
            format!(
                "modalflow-host runs list --env {} --dag-id {dag_id}",
                dag.env.env
            ),
        ));
    }
    Ok(run_id.to_owned())
}

/// An error that names the nearest DAG when this one does not exist.
pub(super) async fn known_dag(pool: &PgPool, dag: &DagArguments) -> anyhow::Result<()> {
    let dag_id = &dag.dag_id;
    if metadata::dags::find(pool, dag_id)
        .await
        .context("look for the DAG")?
        .is_some()
    {
        return Ok(());
    }
    let all = metadata::dags::list(pool, true).await?;
    let nearest = all
        .iter()
        .map(|row| (strsim::jaro_winkler(&row.dag_id, dag_id), &row.dag_id))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((likeness, nearest)) if likeness > 0.8 => format!("did you mean {nearest:?}?"),
        _ => format!("modalflow-host dags list --env {} shows all", dag.env.env),
    };
    Err(hinted(
        format!(
            "there is no DAG {dag_id:?} in environment {:?}",
            dag.env.env
        ),
        hint,
    ))
}

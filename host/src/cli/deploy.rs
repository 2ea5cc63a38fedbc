//! `create` and `destroy` of an environment on Modal: the local half, the plan, the deployment.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use environment::progress::Stderr;
use environment::state::{OnModal, State};
use environment::{Config, Environment, Home, Name, Placement, Progress};

use super::arguments::{CreateArguments, Format};
use super::exit::hinted;
use super::output;
use crate::house;
use crate::modal::blueprint::Blueprint;
use crate::modal::error::Error;
use crate::modal::plan::{self, Action, Change, Fingerprint, There};
use crate::modal::{deploy, destroy, emit, remote};

/// The environment that `create` is about, if it is to be on Modal.
pub(super) fn concerns_modal(home: &Home, arguments: &CreateArguments) -> anyhow::Result<bool> {
    // A config file that says `local` for an environment that is on Modal is a mistake that is told, not a move.
    let wanted = match &arguments.config {
        Some(path) => Some(Config::read(path)?.placement),
        None => None,
    };
    let existing =
        existing(home, &arguments.env.env)?.map(|environment| environment.config().placement);
    match (existing, wanted) {
        (Some(is), Some(wanted)) if is != wanted => Err(hinted(
            format!("move environment {} by `create`", arguments.env.env),
            "an environment stays where it was made: destroy it first, or take another name",
        )),
        (is, wanted) => Ok(wanted.or(is) == Some(Placement::Modal)),
    }
}

/// The environment of that name, if there is one. One that can't be read is not one that is not there.
fn existing(home: &Home, name: &str) -> Result<Option<Environment>, environment::Error> {
    match Environment::open(home, name) {
        Ok(environment) => Ok(Some(environment)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing was ever deployed under that name.
pub(super) fn is_absence(error: &environment::Error) -> bool {
    matches!(
        error,
        environment::Error::UnknownEnvironment { .. } | environment::Error::Unfinished { .. }
    )
}

pub(super) async fn create(home: &Home, arguments: CreateArguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.env.env;
    Name::new(name)?;
    let existing = existing(home, name)?;
    let config = match (&arguments.config, &existing) {
        (Some(path), _) => Config::read(path)?,
        (None, Some(existing)) => existing.config().clone(),
        (None, None) => anyhow::bail!("an environment without a config file is local"),
    };
    if let Some(folder) = &arguments.emit_python {
        let environment = here(home, &arguments, existing).await?;
        return write_python(&environment, folder);
    }
    // Before anything is made: a wrong token or a database that Modal can't reach is told at once.
    let (client, named) = remote::connect(&config).await?;
    let state = existing.as_ref().map(Environment::state);
    let modal_environment = remote::choose(&client, name, &named, state).await?;
    if arguments.plan && existing.is_none() {
        let there = client
            .app_find(&house::app_name(name), &modal_environment)
            .await?;
        return tell_first(name, &config, there.is_some(), arguments.output.output);
    }
    let is_new = existing.is_none();
    if is_new {
        let app = house::app_name(name);
        if client.app_find(&app, &modal_environment).await?.is_some() {
            return Err(Error::Foreign {
                app,
                name: name.clone(),
            }
            .into());
        }
    }
    let mut environment = match (arguments.plan, existing) {
        (true, Some(existing)) => existing.with_config(arguments.config.as_deref())?,
        (_, existing) => here(home, &arguments, existing).await?,
    };
    let mut blueprint = Blueprint::of(&environment, program()?)?;
    blueprint.environment = modal_environment.clone();
    let wanted = Fingerprint::of(&blueprint)?;
    let there = There::look(&client, &blueprint).await?;
    let changes = plan::plan(&blueprint, &wanted, &there);
    if arguments.plan {
        tell(&changes, arguments.output.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let tag = wanted.tag();
    if plan::is_idle(&changes) && environment.state().modal.is_some() {
        Stderr.note(&format!("environment {name}: nothing to change"));
        return Ok(ExitCode::SUCCESS);
    }
    environment.remember_modal_environment(&modal_environment)?;
    for change in changes
        .iter()
        .filter(|change| change.action != Action::Keep)
    {
        Stderr.note(&sentence(change));
    }
    let deployed = deploy::deploy(&client, &blueprint, &tag, &Stderr).await?;
    for warning in client.take_warnings() {
        Stderr.note(&format!("Modal warns: {warning}"));
    }
    environment.remember_deployment(Some(OnModal {
        app_id: deployed.app_id,
        execution_api_url: deployed.execution_api_url,
        ui_url: deployed.ui_url.clone(),
        fingerprint: tag,
    }))?;
    Stderr.note(&format!(
        "environment {name} is deployed as app {}; the UI opens at {}, user {}, password in `env show`",
        blueprint.app,
        deployed.ui_url,
        environment::airflow::UI_USER
    ));
    Ok(ExitCode::SUCCESS)
}

/// The half of the environment that is on this machine: keys, Airflow's tables, a copy of the DAGs.
async fn here(
    home: &Home,
    arguments: &CreateArguments,
    existing: Option<Environment>,
) -> anyhow::Result<Environment> {
    let config = arguments.config.as_deref();
    match existing {
        Some(mut environment) => {
            if let Some(config) = config {
                // What runs must not be led to a database that it can't work on.
                let planned = environment.clone().with_config(Some(config))?;
                match house::connect(&planned, &Stderr).await {
                    Ok(pool) => pool.close().await,
                    Err(house::Error::Metadata(metadata::Error::SchemaRevision {
                        found, ..
                    })) => {
                        return Err(Error::OtherDatabase {
                            name: environment.name().to_owned(),
                            place: planned.connection_string().place(),
                            found,
                        }
                        .into());
                    }
                    Err(error) => return Err(error.into()),
                }
                environment.reconfigure(config)?;
            }
            Ok(environment)
        }
        None => {
            let made = Environment::create(home, &arguments.env.env, config, &Stderr).await?;
            house::connect(&made, &Stderr).await?.close().await;
            Ok(made)
        }
    }
}

fn program() -> anyhow::Result<std::path::PathBuf> {
    std::env::current_exe().context("find this program's own file")
}

fn write_python(environment: &Environment, folder: &Path) -> anyhow::Result<ExitCode> {
    let blueprint = Blueprint::of(environment, program()?)?;
    let files = emit::write(&blueprint, folder)?;
    let mut text = String::new();
    for file in &files {
        text.push_str(&format!("{}\n", file.display()));
    }
    output::print(&text)?;
    Stderr.note(&format!(
        "{} says how to deploy it",
        files
            .first()
            .map_or(folder, |file| file.as_path())
            .display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn tell(changes: &[Change], format: Format) -> anyhow::Result<()> {
    output::listing(
        changes,
        &[
            ("ACTION", "action"),
            ("RESOURCE", "resource"),
            ("NAME", "name"),
            ("WHY", "why"),
        ],
        format,
    )?;
    let count = |action| {
        changes
            .iter()
            .filter(|change| change.action == action)
            .count()
    };
    let (create, update) = (count(Action::Create), count(Action::Update));
    Stderr.note(&match create + update {
        0 => "nothing to change".to_owned(),
        _ => format!("{create} to create, {update} to update; nothing has been changed"),
    });
    Ok(())
}

/// The plan of an environment that has no keys yet: all of it is made.
fn tell_first(
    name: &str,
    config: &Config,
    is_deployed: bool,
    format: Format,
) -> anyhow::Result<ExitCode> {
    if is_deployed {
        return Err(Error::Foreign {
            app: house::app_name(name),
            name: name.to_owned(),
        }
        .into());
    }
    tell(&plan::first(name, config), format)?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(change: &Change) -> String {
    let verb = match change.action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Keep => "keep",
    };
    format!("{verb} {} {}: {}", change.resource, change.name, change.why)
}

/// Takes away what is on Modal; answers what happened.
pub(super) async fn destroy(
    environment: &mut Environment,
    is_forgotten: bool,
) -> anyhow::Result<Vec<String>> {
    let (name, state) = (environment.name(), environment.state());
    let lines = take_away(name, state, Some(environment.config()), is_forgotten).await?;
    environment.remember_deployment(None)?;
    Ok(lines)
}

/// The same where the rest of the environment's files may be unreadable.
pub(super) async fn take_away(
    name: &str,
    state: &State,
    config: Option<&Config>,
    is_forgotten: bool,
) -> anyhow::Result<Vec<String>> {
    let (client, modal_environment) = remote::reach(state, config).await?;
    let lines = destroy::destroy(&client, name, &modal_environment).await?;
    if lines.is_empty() && state.modal.is_some() && !is_forgotten {
        return Err(hinted(
            format!(
                "nothing of environment {name} is where it was deployed, as far as this token can see"
            ),
            "use the token of the workspace that it was deployed in; if somebody has removed it there, add --forget",
        ));
    }
    Ok(lines)
}

//! `create` and `destroy` of an environment on Modal: the local half, the plan, the deployment.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use environment::progress::Stderr;
use environment::state::OnModal;
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
    let existing = Environment::open(home, &arguments.env.env)
        .ok()
        .map(|environment| environment.config().placement);
    match (existing, wanted) {
        (Some(is), Some(wanted)) if is != wanted => Err(hinted(
            format!("move environment {} by `create`", arguments.env.env),
            "an environment stays where it was made: destroy it first, or take another name",
        )),
        (is, wanted) => Ok(wanted.or(is) == Some(Placement::Modal)),
    }
}

pub(super) async fn create(home: &Home, arguments: CreateArguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.env.env;
    Name::new(name)?;
    let existing = Environment::open(home, name).ok();
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
    let (client, modal_environment) = remote::connect(&config).await?;
    if arguments.plan && existing.is_none() {
        let there = client
            .app_find(&house::app_name(name), &modal_environment)
            .await?;
        return tell_first(name, there.is_some(), arguments.output.output);
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
    blueprint.environment = modal_environment;
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
fn tell_first(name: &str, is_deployed: bool, format: Format) -> anyhow::Result<ExitCode> {
    if is_deployed {
        return Err(Error::Foreign {
            app: house::app_name(name),
            name: name.to_owned(),
        }
        .into());
    }
    tell(&plan::first(name), format)?;
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
pub(super) async fn destroy(environment: &mut Environment) -> anyhow::Result<Vec<String>> {
    let (client, modal_environment) = remote::connect(environment.config()).await?;
    let lines = destroy::destroy(&client, environment.name(), &modal_environment).await?;
    environment.remember_deployment(None)?;
    Ok(lines)
}

//! `create`, `destroy`, `env show`, `env list`.

use std::process::ExitCode;

use environment::progress::Stderr;
use environment::state::State;
use environment::{AIRFLOW_VERSION, Config, Environment, Home, Placement, Progress, postgres};
use serde::Serialize;

use super::arguments::{CreateArguments, DestroyArguments, EnvListArguments, EnvShowArguments};
use super::exit::hinted;
use super::output;
use super::{context, deploy};
use crate::modal::blueprint::volume_name;
use crate::{house, local};

pub(super) async fn create(arguments: CreateArguments) -> anyhow::Result<ExitCode> {
    let home = Home::from_env()?;
    if deploy::concerns_modal(&home, &arguments)? {
        return deploy::create(&home, arguments).await;
    }
    if arguments.plan || arguments.emit_python.is_some() {
        return Err(hinted(
            "an environment on this machine has no deployment",
            "with `placement: modal` in the config file it is deployed on Modal: --plan shows what changes there, --emit-python writes it down",
        ));
    }
    let environment = Environment::create(
        &home,
        &arguments.env.env,
        arguments.config.as_deref(),
        &Stderr,
    )
    .await?;
    house::connect(&environment, &Stderr).await?;
    Stderr.note(&format!("environment {} is ready", environment.name()));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn destroy(arguments: DestroyArguments) -> anyhow::Result<ExitCode> {
    let home = Home::from_env()?;
    let name = &arguments.env.env;
    if !arguments.yes {
        // Opening it first: a wrong name is the likelier mistake.
        Environment::open(&home, name)?;
        return Err(hinted(
            format!("destroy environment {name} without a confirmation"),
            format!(
                "its DAGs, runs, logs and XComs will be gone: modalflow-host destroy --env {name} --yes"
            ),
        ));
    }
    match Environment::open(&home, name) {
        Ok(mut environment) if is_on_modal(environment.state(), Some(environment.config())) => {
            for line in deploy::destroy(&mut environment, arguments.forget).await? {
                Stderr.note(&line);
            }
        }
        Ok(environment) => {
            let Some(seat) = local::take_seat_in_time(&environment).await? else {
                return Err(hinted(
                    format!("environment {name} is being served"),
                    "stop `modalflow-host serve` with Ctrl-C first",
                ));
            };
            local::end_containers(&environment, &seat).await?;
        }
        Err(error) if deploy::is_absence(&error) => {}
        // What runs on Modal goes on without this machine's files, and only they say that it is there.
        Err(error) => match Environment::state_of(&home, name) {
            Ok(state) if is_on_modal(&state, None) => {
                for line in deploy::take_away(name, &state, None, arguments.forget).await? {
                    Stderr.note(&line);
                }
            }
            // Its keys are lost, and nothing needs them.
            Ok(_) if matches!(error, environment::Error::Damaged { .. }) => {}
            _ if arguments.forget => {}
            _ => {
                return Err(hinted(
                    error.to_string(),
                    "with --forget its data on this machine is removed all the same; what the unreadable file names elsewhere stays",
                ));
            }
        },
    }
    let destroyed = Environment::destroy(&home, name, &Stderr).await?;
    for line in destroyed.lines {
        Stderr.note(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether there may be something there to take away.
fn is_on_modal(state: &State, config: Option<&Config>) -> bool {
    state.modal.is_some()
        || state.modal_environment.is_some()
        || config.is_some_and(|config| config.placement == Placement::Modal)
}

/// What `env show` shows.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    airflow_version: String,
    /// libpq form, with the password: whoever may read the environment's secrets may see it.
    database_url: String,
    /// The same for SQLAlchemy, as `AIRFLOW__DATABASE__SQL_ALCHEMY_CONN`.
    sql_alchemy_conn: String,
    /// Whether modalflow runs the database itself.
    database_is_embedded: bool,
    execution_api_url: String,
    volume: String,
    dags: String,
    logs: String,
    xcom: String,
    root: String,
    config: String,
    /// Whether a `serve` is at work.
    serving: bool,
    placement: &'static str,
    /// Where the UI is reached, and with which password, when the environment is on Modal.
    #[serde(skip_serializing_if = "Option::is_none")]
    ui_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ui_password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modal_app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modal_volume: Option<String>,
}

pub(super) async fn show(arguments: EnvShowArguments) -> anyhow::Result<ExitCode> {
    let environment = context::environment(&arguments.env)?;
    let database = postgres::ensure_running(&environment, &Stderr).await?;
    let there = environment.state().modal.as_ref();
    let path = |path: std::path::PathBuf| path.display().to_string();
    let shown = Shown {
        name: environment.name().to_owned(),
        airflow_version: AIRFLOW_VERSION.to_owned(),
        database_url: database.url.clone(),
        sql_alchemy_conn: database.connection.psycopg2(),
        database_is_embedded: database.embedded,
        execution_api_url: environment.execution_api_url(),
        volume: path(environment.volume()),
        dags: path(environment.dags_dir()),
        logs: path(environment.logs_dir()),
        xcom: path(environment.xcom_dir()),
        root: path(environment.root()),
        config: path(environment.root().join("config.yaml")),
        serving: local::is_served(&environment)?,
        placement: match environment.config().placement {
            Placement::Local => "local",
            Placement::Modal => "modal",
        },
        ui_url: there.map(|there| there.ui_url.clone()),
        ui_password: there.map(|_| environment.secrets().ui_password.clone()),
        modal_app: there.map(|_| house::app_name(environment.name())),
        modal_volume: there.map(|_| volume_name(environment.name())),
    };
    output::object(&shown, arguments.output.output)?;
    Ok(ExitCode::SUCCESS)
}

/// A line of `env list`.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    root: String,
}

pub(super) fn list(arguments: &EnvListArguments) -> anyhow::Result<ExitCode> {
    let home = Home::from_env()?;
    let mut rows = Vec::new();
    for name in Environment::list(&home)? {
        let environment = Environment::open(&home, &name)?;
        rows.push(Listed {
            name,
            root: environment.root().display().to_string(),
        });
    }
    output::listing(
        &rows,
        &[("NAME", "name"), ("ROOT", "root")],
        arguments.output.output,
    )?;
    Ok(ExitCode::SUCCESS)
}

//! An environment as a function on Modal sees it: what it is comes in variables, the volume is mounted, and everything else
//! lies in a folder that goes with the container. Nothing of it is written back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::home::{Home, Name, private_directory};
use crate::postgres::ConnectionString;
use crate::python::PythonEnv;
use crate::secrets::{Secrets, write_private};
use crate::state::{Phase, State};
use crate::{AIRFLOW_VERSION, Config, Environment, Error, Result};

/// Holds [`Settings`] as JSON; whoever has it is in a container.
pub const SETTINGS: &str = "MODALFLOW_SETTINGS";
/// Holds [`Keys`] as JSON; workers have none.
pub const KEYS: &str = "MODALFLOW_KEYS";
/// The interpreter that has Airflow.
pub const PYTHON: &str = "MODALFLOW_CONTAINER_PYTHON";
/// Where the volume is mounted.
pub const VOLUME: &str = "MODALFLOW_CONTAINER_VOLUME";

/// What every function of an environment knows. No secret is among it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The environment's name.
    pub name: String,
    /// The environment's id, as in `state.json`.
    pub id: String,
    pub created_at: chrono::DateTime<chrono::Utc>,
    /// The app that the functions are of.
    pub app: String,
    /// The volume's name.
    pub volume: String,
    /// [`Config::for_containers`].
    pub config: String,
    /// `modal.airflow_python`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airflow_python: Option<String>,
}

/// What the functions know that work on the database.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keys {
    pub connection_string: String,
    pub secrets: Secrets,
}

/// An environment's parts that differ in a container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) volume: PathBuf,
    pub(crate) settings: Settings,
}

/// Whether this process runs in a function of an environment.
pub fn is_here() -> bool {
    std::env::var_os(SETTINGS).is_some()
}

impl Environment {
    /// What the functions of this environment are told.
    pub fn container_settings(&self, app: &str, volume: &str) -> Settings {
        Settings {
            name: self.name().to_owned(),
            id: self.state().id.clone(),
            created_at: self.state().created_at,
            app: app.to_owned(),
            volume: volume.to_owned(),
            config: self.config().for_containers(),
            airflow_python: self.config().modal.airflow_python.clone(),
        }
    }

    /// What those are told that work on the database.
    pub fn container_keys(&self) -> Keys {
        Keys {
            connection_string: self.connection_string().url(),
            secrets: self.secrets().clone(),
        }
    }

    /// The environment that this container belongs to.
    pub fn in_container(home: &Home) -> Result<Environment> {
        let settings: Settings = read(SETTINGS)?;
        let keys: Option<Keys> = match std::env::var_os(KEYS) {
            Some(_) => Some(read(KEYS)?),
            None => None,
        };
        let python = PathBuf::from(variable(PYTHON)?);
        let home = home.clone().with_python(PythonEnv {
            site_packages: PathBuf::new(),
            airflow_version: AIRFLOW_VERSION.to_owned(),
            made_from: python.clone(),
            python_version: String::new(),
            python,
        });
        let mut config = Config::parse(&settings.config, SETTINGS)?;
        let secrets = match keys {
            Some(keys) => {
                config.connection_string = Some(ConnectionString::parse(&keys.connection_string)?);
                keys.secrets
            }
            None => Secrets::none(),
        };
        let environment = Environment {
            home,
            name: Name::new(&settings.name)?,
            config,
            state: State {
                id: settings.id.clone(),
                phase: Phase::Ready,
                created_at: settings.created_at,
                airflow_version: AIRFLOW_VERSION.to_owned(),
                execution_api_port: 0,
                postgres: None,
                modal_environment: None,
                modal: None,
            },
            secrets,
            container: Some(Container {
                volume: PathBuf::from(variable(VOLUME)?),
                settings,
            }),
            planned_requirements: None,
        };
        environment.lay_out_container()?;
        Ok(environment)
    }

    /// The settings of the container that this is; none on a machine of the user's.
    pub fn container(&self) -> Option<&Settings> {
        self.container.as_ref().map(|container| &container.settings)
    }

    fn lay_out_container(&self) -> Result<()> {
        for path in [self.root(), self.run_dir(), self.airflow_home()] {
            private_directory(&path, 0o700)?;
        }
        for path in [
            self.dags_dir(),
            self.plugins_dir(),
            self.logs_dir(),
            self.xcom_dir(),
        ] {
            make(&path)?;
        }
        write_private(
            &self.airflow_home().join("airflow.cfg"),
            b"# Every setting comes from AIRFLOW__ variables that modalflow-host sets.\n",
        )?;
        if self.config().connection_string.is_some() {
            crate::airflow::write_passwords(self)?;
        }
        Ok(())
    }
}

/// A folder of the volume, which may be there.
fn make(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("make directory", path))
}

fn variable(name: &'static str) -> Result<std::ffi::OsString> {
    std::env::var_os(name).ok_or(Error::NotInContainer { name })
}

fn read<T: serde::de::DeserializeOwned>(name: &'static str) -> Result<T> {
    let text = variable(name)?;
    // serde_json quotes no values of strings, only kinds and places.
    serde_json::from_slice(text.as_encoded_bytes()).map_err(|error| Error::ContainerVariable {
        name,
        problem: error.to_string(),
    })
}

//! One environment: opened, listed, set anew. [`create`] and [`destroy`] are the ends of its life, [`paths`] says where its things lie.

mod create;
mod destroy;
mod given;
mod paths;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::create::free_port;
pub use self::destroy::Destroyed;
use self::given::Given;
use crate::config::Config;
use crate::container::Container;
use crate::home::{Home, Name};
use crate::secrets::Secrets;
use crate::state::{OnModal, Phase, State};
use crate::{Error, Result};

/// How long one modalflow waits for another that creates or destroys the same environment.
const PATIENCE: Duration = Duration::from_secs(600);
/// The environment's copy of what `modal.requirements` names.
const REQUIREMENTS: &str = "requirements.txt";

/// One environment, opened.
#[derive(Debug, Clone)]
pub struct Environment {
    pub(crate) home: Home,
    pub(crate) name: Name,
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) secrets: Secrets,
    /// Set in a function on Modal.
    pub(crate) container: Option<Container>,
    /// Of a config file that was only looked at.
    pub(crate) planned_requirements: Option<Option<String>>,
}

impl Environment {
    /// Opens an environment that `create` finished.
    pub fn open(home: &Home, name: &str) -> Result<Environment> {
        // First of all: what `create` has not finished may lack any of its files.
        if Environment::state_of(home, name)?.phase != Phase::Ready {
            return Err(Error::Unfinished {
                name: name.to_owned(),
            });
        }
        Environment::open_unfinished(home, name)
    }

    /// The same while `create` is at it: its Postgres has a keeper already.
    pub(crate) fn open_unfinished(home: &Home, name: &str) -> Result<Environment> {
        let name = Name::new(name)?;
        let root = home.environment(&name);
        if !root.join("state.json").exists() {
            return Err(unknown(home, &name));
        }
        Ok(Environment {
            home: home.clone(),
            state: State::read(&root.join("state.json"))?,
            config: Config::read(&root.join("config.yaml"))?,
            secrets: Secrets::read(&root.join("secrets.json"))?,
            name,
            container: None,
            planned_requirements: None,
        })
    }

    /// The names of all finished environments, in order.
    pub fn list(home: &Home) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(home.environments()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", home.environments())(error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| Name::new(entry.ok()?.file_name().to_str()?).ok())
            .filter(|name| {
                State::read(&home.environment(name).join("state.json"))
                    .is_ok_and(|state| state.phase == Phase::Ready)
            })
            .map(|name| name.to_string())
            .collect();
        names.sort();
        Ok(names)
    }

    /// As it would be with other settings; nothing is kept.
    pub fn with_config(mut self, config: Option<&Path>) -> Result<Environment> {
        if let Some(path) = config {
            let given = Given::read(path)?;
            self.config = given.config;
            self.planned_requirements = Some(
                given
                    .requirements
                    .map(|text| String::from_utf8_lossy(&text).into_owned()),
            );
        }
        Ok(self)
    }

    /// Takes new settings of an environment that exists.
    pub fn reconfigure(&mut self, config: &Path) -> Result<()> {
        let given = Given::read(config)?;
        given.keep(&self.root())?;
        self.config = given.config;
        Ok(())
    }

    /// What tasks need beside Airflow: the text of `modal.requirements`.
    pub fn requirements(&self) -> Result<Option<String>> {
        if let Some(planned) = &self.planned_requirements {
            return Ok(planned.clone());
        }
        let path = self.root().join(REQUIREMENTS);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// What is kept of an environment whose other files may be unreadable.
    pub fn state_of(home: &Home, name: &str) -> Result<State> {
        let name = Name::new(name)?;
        let path = home.environment(&name).join("state.json");
        if !path.exists() {
            return Err(unknown(home, &name));
        }
        State::read(&path)
    }

    /// Remembers Modal's environment; from now on there may be something in it.
    pub fn remember_modal_environment(&mut self, name: &str) -> Result<()> {
        if self.state.modal_environment.as_deref() != Some(name) {
            self.state.modal_environment = Some(name.to_owned());
            self.write_state()?;
        }
        Ok(())
    }

    /// Remembers what was deployed on Modal; none: it was taken away.
    pub fn remember_deployment(&mut self, deployment: Option<OnModal>) -> Result<()> {
        if self.state.modal != deployment {
            self.state.modal = deployment;
            self.write_state()?;
        }
        Ok(())
    }

    fn write_state(&self) -> Result<()> {
        self.state.write(&self.root().join("state.json"))
    }

    /// Keeps the Execution API's port if it is free, else chooses another and remembers it. Answers with the
    /// listener and, when the port changed, the old one: workers that still run then have lost their host.
    pub fn listen_for_execution_api(&mut self) -> Result<(std::net::TcpListener, Option<u16>)> {
        let wanted = self.state.execution_api_port;
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
            Ok(listener) => Ok((listener, None)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let (listener, port) = free_port()?;
                self.state.execution_api_port = port;
                self.write_state()?;
                Ok((listener, Some(wanted)))
            }
            Err(source) => Err(Error::Port {
                wanted: format!(":{wanted}"),
                hint: "see what the system says; the port stands in the environment's state.json",
                source,
            }),
        }
    }
}

/// The lock lies beside the environment, as the environment itself comes and goes.
fn lock_path(home: &Home, name: &Name) -> PathBuf {
    home.environments().join(format!(".{name}.lock"))
}

fn unknown(home: &Home, name: &Name) -> Error {
    let known = Environment::list(home).unwrap_or_default();
    let nearest = known
        .iter()
        .map(|other| (strsim::jaro_winkler(name.as_str(), other), other))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    Error::UnknownEnvironment {
        name: name.to_string(),
        known: if known.is_empty() {
            ": there is none yet".to_owned()
        } else {
            format!(": there is {}", known.join(", "))
        },
        hint: match nearest {
            Some((_, other)) => format!("did you mean {other}?"),
            None => format!("make it with `modalflow-host create --env {name}`"),
        },
    }
}

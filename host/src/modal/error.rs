//! What can go wrong between a config file and functions that run on Modal.

use std::path::PathBuf;

/// Each says what to do; what was half done is completed by asking again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Modal(#[from] modal_api::Error),
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error("{step}")]
    Step {
        step: String,
        #[source]
        source: Box<modal_api::Error>,
    },
    #[error(
        "deploy to Modal: its containers can't reach the database at {place}, an address of this machine alone\n\
         hint: set database.connection_string to a Postgres that is reached from outside; only with an emulator on this machine (MODAL_SERVER_URL) a local one will do"
    )]
    LocalDatabase { place: String },
    #[error(
        "deploy {app}: it is deployed already, with keys that this machine does not have\n\
         hint: copy envs/{name} below MODALFLOW_HOME from where it was created, or stop that app first: modal app stop {app}"
    )]
    Foreign { app: String, name: String },
    #[error(
        "deploy environment {name} to Modal's environment {wanted}: it is deployed in {there}\n\
         hint: set modal.environment to {there} (or MODAL_ENVIRONMENT, or leave both out), or destroy it first: modalflow-host destroy --env {name} --yes"
    )]
    Elsewhere {
        name: String,
        there: String,
        wanted: String,
    },
    #[error(
        "move environment {name} to {place}: there is no Airflow 3.3.2 in that database (schema revision {found})\n\
         hint: copy the database there first (pg_dump), or take another name for an environment on it"
    )]
    OtherDatabase {
        name: String,
        place: String,
        found: String,
    },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("deploy {function}: Modal gave it no address")]
    NoAddress { function: &'static str },
    #[error(
        "find the deployment of environment {name}\nhint: complete it with `modalflow-host create --env {name}`"
    )]
    NotDeployed { name: String },
}

impl Error {
    /// Names what was being done when Modal refused.
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(modal_api::Error) -> Self {
        let step = step.into();
        move |source| Self::Step {
            step,
            source: Box::new(source),
        }
    }
}

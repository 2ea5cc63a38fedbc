//! `state.json`: what was decided when an environment was created and must stay so. No secrets in it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Twelve hex digits that no other environment on this machine has.
    pub id: String,
    /// `Ready` once everything was made; anything else is the rest of a `create` that was killed.
    pub phase: Phase,
    pub created_at: chrono::DateTime<chrono::Utc>,
    pub airflow_version: String,
    /// The loopback port that workers know the Execution API by.
    pub execution_api_port: u16,
    /// Where the embedded Postgres lies; absent when config.yaml names a database.
    pub postgres: Option<Cluster>,
    /// The name of Modal's environment that `create` deploys to: kept before anything is made there, so that whoever takes it
    /// away looks in the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modal_environment: Option<String>,
    /// What `create` deployed, with `placement: modal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modal: Option<OnModal>,
}

/// Where an environment's functions are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnModal {
    pub app_id: String,
    pub execution_api_url: String,
    pub ui_url: String,
    /// What was deployed: the same fingerprint again means that nothing is to be done.
    pub fingerprint: String,
}

/// How far `create` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Creating,
    Ready,
}

/// One embedded Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The directory with `initdb`, `pg_ctl` and `postgres`.
    pub binaries: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// The directory of its only socket.
    pub sockets: PathBuf,
    /// Whom it runs as, when that is not the user who runs modalflow.
    pub user: Option<RunAs>,
    /// The directory outside MODALFLOW_HOME that holds the data, when the home cannot be entered by `user`.
    pub outside: Option<PathBuf>,
}

/// A user to drop to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl State {
    pub(crate) fn read(path: &Path) -> Result<State> {
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        serde_json::from_slice(&text).map_err(|error| Error::Damaged {
            path: path.to_owned(),
            problem: error.to_string(),
            hint: "the file is modalflow's own; put its last good copy back. Only it says whether there is something on Modal to take away",
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).expect("a state is always JSON");
        text.push(b'\n');
        crate::secrets::write_private(path, &text)
    }
}

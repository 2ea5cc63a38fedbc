//! Where an environment's things lie, and where it is reached.

use std::path::PathBuf;

use super::Environment;
use crate::Result;
use crate::config::Config;
use crate::home::{Home, socket_path};
use crate::postgres::{self, ConnectionString};
use crate::secrets::Secrets;
use crate::state::State;

impl Environment {
    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The environment's directory.
    pub fn root(&self) -> PathBuf {
        self.home.environment(&self.name)
    }

    /// Process ids, sockets and logs of what runs now.
    pub fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }

    /// The volume: what every worker sees.
    pub fn volume(&self) -> PathBuf {
        match &self.container {
            Some(container) => container.volume.clone(),
            None => self.root().join("volume"),
        }
    }

    pub fn dags_dir(&self) -> PathBuf {
        self.volume().join("dags")
    }

    pub fn logs_dir(&self) -> PathBuf {
        self.volume().join("logs")
    }

    pub fn xcom_dir(&self) -> PathBuf {
        self.volume().join("xcom")
    }

    /// Airflow's plugins folder: users' own timetables, weight rules and whatever else an `AirflowPlugin` brings.
    pub fn plugins_dir(&self) -> PathBuf {
        self.volume().join("plugins")
    }

    /// AIRFLOW_HOME of every Airflow process.
    pub fn airflow_home(&self) -> PathBuf {
        self.root().join("airflow")
    }

    /// The path of a Unix socket of this environment, always short enough to be one.
    pub fn socket(&self, file_name: &str) -> Result<PathBuf> {
        socket_path(&self.run_dir(), file_name)
    }

    pub fn execution_api_port(&self) -> u16 {
        self.state.execution_api_port
    }

    /// What workers call; ends with `/execution/`.
    pub fn execution_api_url(&self) -> String {
        if let Some(modal) = &self.state.modal {
            return format!(
                "{}/execution/",
                modal.execution_api_url.trim_end_matches('/')
            );
        }
        format!(
            "http://127.0.0.1:{}/execution/",
            self.state.execution_api_port
        )
    }

    /// The database's address, whether it runs just now or not. Holds the password.
    pub fn connection_string(&self) -> ConnectionString {
        match (&self.config.connection_string, &self.state.postgres) {
            (Some(external), _) => external.clone(),
            (None, Some(cluster)) => postgres::address(cluster, &self.secrets, postgres::DATABASE),
            (None, None) => unreachable_cluster(),
        }
    }
}

/// `furnish` sets the cluster before anybody else sees the environment, and `open` refuses unfinished ones.
fn unreachable_cluster() -> ConnectionString {
    unreachable!("an environment without a connection string has an embedded Postgres")
}

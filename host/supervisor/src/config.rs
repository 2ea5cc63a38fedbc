//! The settings of a worker, as JSON in a file: no credential is among them, each workload brings its own token.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Names the file that holds a `WorkerConfig`.
pub const CONFIG_VARIABLE: &str = "MODALFLOW_WORKER_CONFIG";

/// Who supervises the task runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorKind {
    /// This crate: one supervisor for many tasks.
    #[default]
    Modalflow,
    /// Airflow's own Python supervisor, one process more for each task.
    Airflow,
}

/// What a worker must know to run tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The Python of the environment that holds Airflow.
    pub python: PathBuf,
    /// The folder with `fork_server.py` and `task_protocol.py`.
    pub python_files: PathBuf,
    /// Added to the environment of Python: `AIRFLOW__…` settings, never a credential of modalflow's.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The base address of the Execution API, e.g. `http://127.0.0.1:8080/execution/`.
    pub execution_api_url: String,
    /// The volume's folder; logs and XComs lie below it.
    pub volume: PathBuf,
    /// Where the DAG files lie.
    pub dags: PathBuf,
    /// The name of the DAG bundle that `dags` is.
    pub bundle_name: String,
    #[serde(default)]
    pub supervisor: SupervisorKind,
    #[serde(default)]
    pub plugins: PluginSettings,
    #[serde(default)]
    pub limits: Limits,
}

/// Which plugins keep XComs and logs; without a choice the built-in ones do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginSettings {
    pub xcom_backend: PluginChoice,
    pub log_handler: PluginChoice,
    /// Compiled components; default: `modalflow-plugins` below the system's folder for temporary files.
    pub cache: Option<PathBuf>,
    /// Values too large for memory; default: the system's folder for temporary files.
    pub spool: Option<PathBuf>,
}

/// One plugin and what it may have.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginChoice {
    /// A component file in the place of the built-in plugin.
    pub component: Option<PathBuf>,
    /// The plugin's own settings.
    pub settings: serde_json::Value,
    /// Folders behind the store names it asks for; default: the folder of that kind on the volume.
    pub stores: BTreeMap<String, PathBuf>,
}

/// Sizes and times. All have defaults that fit one machine and Modal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many tasks run at once in this worker at most; fewer if the server gives fewer.
    pub concurrent_tasks: usize,
    /// The pause between two heartbeats of a task.
    pub heartbeat_interval_seconds: f64,
    /// How long a task goes on while no heartbeat is answered. Must stay below Airflow's `task_instance_heartbeat_timeout` (300 s).
    pub outage_seconds: f64,
    /// How long a start or an end is reported again while the Execution API is away.
    pub report_seconds: f64,
    /// How long any other request of a task is tried again.
    pub request_seconds: f64,
    /// How long a runner may go on after its task has ended (callbacks, listeners).
    pub overtime_seconds: f64,
    /// The pause between SIGINT, SIGTERM and SIGKILL.
    pub escalation_seconds: f64,
    /// How long running tasks may go on after SIGTERM of the worker.
    pub grace_seconds: f64,
    /// A larger XCom fails its task.
    pub xcom_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_tasks: 256,
            heartbeat_interval_seconds: 5.0,
            outage_seconds: 120.0,
            report_seconds: 600.0,
            request_seconds: 120.0,
            overtime_seconds: 20.0,
            escalation_seconds: 5.0,
            grace_seconds: 30.0,
            xcom_max_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Limits {
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs_f64(self.heartbeat_interval_seconds.max(0.05))
    }

    pub(crate) fn outage(&self) -> Duration {
        Duration::from_secs_f64(self.outage_seconds)
    }

    pub(crate) fn report(&self) -> Duration {
        Duration::from_secs_f64(self.report_seconds)
    }

    pub(crate) fn request(&self) -> Duration {
        Duration::from_secs_f64(self.request_seconds)
    }

    pub(crate) fn overtime(&self) -> Duration {
        Duration::from_secs_f64(self.overtime_seconds)
    }

    pub(crate) fn escalation(&self) -> Duration {
        Duration::from_secs_f64(self.escalation_seconds)
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs_f64(self.grace_seconds)
    }
}

impl WorkerConfig {
    /// Reads the file that the environment names.
    pub fn from_environment() -> Result<Self, Error> {
        let path =
            std::env::var_os(CONFIG_VARIABLE).ok_or(Error::NoConfiguration(CONFIG_VARIABLE))?;
        let path = PathBuf::from(path);
        let text = std::fs::read(&path).map_err(|source| Error::ReadConfiguration {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| Error::Configuration { path, source })
    }

    /// The environment of the fork server and so of every task: this process's own without what is modalflow's or Modal's to
    /// know, then what Airflow needs, then the configured settings.
    pub(crate) fn python_environment(&self, hostname: &str) -> BTreeMap<String, String> {
        let own = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        self.python_environment_on(own.collect(), hostname)
    }

    /// The same on another environment than this process's own.
    pub(crate) fn python_environment_on(
        &self,
        base: BTreeMap<String, String>,
        hostname: &str,
    ) -> BTreeMap<String, String> {
        const SECRETS: [&str; 3] = ["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_SERVER_URL"];
        let mut environment: BTreeMap<String, String> = base
            .into_iter()
            .filter(|(name, _)| {
                !name.starts_with("MODALFLOW_") && !SECRETS.contains(&name.as_str())
            })
            .collect();
        let bundles = serde_json::json!([{
            "name": self.bundle_name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": self.dags},
        }]);
        let logs = self.volume.join("logs");
        for (name, value) in [
            (
                "AIRFLOW__CORE__DAGS_FOLDER",
                self.dags.to_string_lossy().into_owned(),
            ),
            (
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
                self.execution_api_url.clone(),
            ),
            (
                "AIRFLOW__CORE__HOSTNAME_CALLABLE",
                "task_protocol.container_hostname".to_owned(),
            ),
            ("AIRFLOW__CORE__LOAD_EXAMPLES", "False".to_owned()),
            (
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
                bundles.to_string(),
            ),
            (
                "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
                logs.to_string_lossy().into_owned(),
            ),
            ("MODALFLOW_HOSTNAME", hostname.to_owned()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        environment.extend(self.environment.clone());
        // Tasks find the programs of Airflow's environment, and Python the modalflow files.
        let programs = self
            .python
            .parent()
            .map(|folder| folder.to_string_lossy().into_owned());
        prepend(&mut environment, "PATH", programs.unwrap_or_default());
        prepend(
            &mut environment,
            "PYTHONPATH",
            self.python_files.to_string_lossy().into_owned(),
        );
        environment
    }
}

fn prepend(environment: &mut BTreeMap<String, String>, name: &str, folder: String) {
    let path = match environment.get(name) {
        Some(path) if !path.is_empty() => format!("{folder}:{path}"),
        _ => folder,
    };
    environment.insert(name.to_owned(), path);
}

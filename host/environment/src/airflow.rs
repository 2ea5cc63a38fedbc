//! Airflow's settings, as the environment variables of each kind of process. Who gets a secret is decided here and
//! nowhere else: workers and DAG parsers get neither the database nor a key.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::config::Supervisor;
use crate::python::PythonEnv;
use crate::{Environment, Result};

/// The name of the only DAG bundle.
pub const BUNDLE: &str = "dags-folder";

/// The UI's user.
pub const UI_USER: &str = "admin";

/// What an Airflow process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `airflow db migrate`.
    Migrate,
    /// `airflow api-server`: the UI.
    ApiServer,
    /// Airflow's own code that writes DAG tables.
    DagSync,
    /// What runs users' tasks.
    Worker,
    /// What imports users' DAG files.
    DagParser,
}

impl Purpose {
    fn has_database(self) -> bool {
        match self {
            Purpose::Migrate | Purpose::ApiServer | Purpose::DagSync => true,
            Purpose::Worker | Purpose::DagParser => false,
        }
    }

    /// Task logs are written by the worker at the user's level; the others only speak up when something is wrong.
    fn logging_level(self) -> &'static str {
        match self {
            Purpose::Worker => "INFO",
            Purpose::Migrate | Purpose::ApiServer | Purpose::DagSync | Purpose::DagParser => {
                "WARNING"
            }
        }
    }
}

/// The `AIRFLOW_HOME` and `AIRFLOW__…` variables of a process.
pub fn airflow_settings(environment: &Environment, purpose: Purpose) -> BTreeMap<String, String> {
    let config = environment.config();
    let secrets = environment.secrets();
    let mut settings = Settings::default();
    let home = environment.airflow_home();
    settings.plain("AIRFLOW_HOME", path(&home));
    settings.set("core", "load_examples", "False");
    settings.set("core", "dags_folder", path(&environment.dags_dir()));
    settings.set("core", "plugins_folder", path(&environment.plugins_dir()));
    settings.set(
        "core",
        "execution_api_server_url",
        environment.execution_api_url(),
    );
    // Names of executors on tasks are checked against this; who really runs tasks is modalflow.
    settings.set("core", "executor", "LocalExecutor");
    settings.set("core", "parallelism", config.parallelism.to_string());
    settings.set("core", "default_timezone", "utc");
    settings.set(
        "dag_processor",
        "dag_bundle_config_list",
        bundles(environment),
    );
    settings.set("logging", "base_log_folder", path(&environment.logs_dir()));
    settings.set("logging", "logging_level", purpose.logging_level());
    settings.set("usage_data_collection", "enabled", "False");
    if purpose.has_database() {
        let connection = environment.connection_string();
        settings.set("database", "sql_alchemy_conn", connection.psycopg2());
        settings.set("database", "sql_alchemy_conn_async", connection.asyncpg());
        settings.set("database", "load_default_connections", "False");
    }
    match purpose {
        Purpose::Migrate | Purpose::DagSync => {}
        Purpose::DagParser => {
            let seconds = config.parse_timeout.as_secs_f64();
            settings.set("core", "dagbag_import_timeout", seconds.to_string());
        }
        Purpose::Worker => {
            if config.supervisor == Supervisor::Airflow {
                // Airflow's supervisor may hold a finished task's slot for one such interval; as shipped it is 5 s.
                settings.set("workers", "min_heartbeat_interval", "1");
            }
        }
        Purpose::ApiServer => {
            settings.set("core", "fernet_key", secrets.fernet_key.clone());
            settings.set("api_auth", "jwt_secret", secrets.jwt_secret.clone());
            settings.set("api", "secret_key", secrets.api_secret_key.clone());
            settings.set(
                "core",
                "auth_manager",
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            );
            settings.set(
                "core",
                "simple_auth_manager_users",
                format!("{UI_USER}:admin"),
            );
            settings.set(
                "core",
                "simple_auth_manager_passwords_file",
                path(&passwords_file(environment)),
            );
            // Logs of running tasks are read from the volume. Airflow asks the worker's host for more at this port,
            // where another Airflow of the user's may listen with another key; on port 1 nobody does.
            settings.set("logging", "worker_log_server_port", "1");
            // Between two ticks the scheduler's row says nothing new, and is healthy all the same.
            let threshold = 30.max(config.interval.as_secs().saturating_mul(3));
            settings.set(
                "scheduler",
                "scheduler_health_check_threshold",
                threshold.to_string(),
            );
        }
    }
    settings.0
}

/// `python -m airflow ARGUMENTS` with these settings and no others: a user's own Airflow variables are for the
/// user's own Airflow.
pub(crate) fn command(
    environment: &Environment,
    python: &PythonEnv,
    purpose: Purpose,
    arguments: &[&str],
) -> Command {
    let mut command = Command::new(&python.python);
    command.args(["-m", "airflow"]).args(arguments);
    clean(&mut command);
    command
        .current_dir(environment.airflow_home())
        .envs(airflow_settings(environment, purpose));
    command
}

/// Takes away what would lead Python or Airflow elsewhere.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("AIRFLOW__") || text == "AIRFLOW_CONFIG" || text.starts_with("PYTHON") {
            command.env_remove(&name);
        }
    }
}

/// The file that SimpleAuthManager reads its passwords from. It would make one that everybody may read, so ours is
/// there first.
pub(crate) fn write_passwords(environment: &Environment) -> Result<()> {
    let text = json!({ UI_USER: environment.secrets().ui_password });
    crate::secrets::write_private(&passwords_file(environment), format!("{text}\n").as_bytes())
}

fn passwords_file(environment: &Environment) -> std::path::PathBuf {
    environment.root().join("ui-passwords.json")
}

fn bundles(environment: &Environment) -> String {
    json!([{
        "name": BUNDLE,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": path(&environment.dags_dir())},
    }])
    .to_string()
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[derive(Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn plain(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn set(&mut self, section: &str, key: &str, value: impl Into<String>) {
        let name = format!("AIRFLOW__{section}__{key}").to_uppercase();
        self.plain(&name, value);
    }
}

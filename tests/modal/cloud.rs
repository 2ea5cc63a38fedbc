//! Modal on this machine, an environment deployed on it, and the programs that look at both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use emulator::{Config, Emulator, Listen, Recorded, Stop, Tokens};
use support::faults::{BadLine, Plan};
use support::{Database, Ran, modalflow, prepared};
use uuid::Uuid;

/// Long, because the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// Modal in this process, with a token.
pub(crate) struct Cloud {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
    emulator: Option<Emulator>,
    address: String,
    tokens: Tokens,
}

impl Cloud {
    /// None where the test run has no Python with Modal's client.
    pub(crate) fn start() -> Self {
        // Containers' sockets lie in it: their paths must be short.
        let folder = tempfile::Builder::new()
            .prefix("mf")
            .tempdir_in("/tmp")
            .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let tokens = Tokens::kept_in(folder.path()).unwrap();
        let emulator = runtime
            .block_on(Emulator::start(Config {
                state_dir: folder.path().join("state"),
                socket_dir: folder.path().join("s"),
                listen: Listen {
                    unix: Some(folder.path().join("modal.sock")),
                    tcp: Some("127.0.0.1:0".parse().unwrap()),
                    beyond_loopback: false,
                },
                tokens: Some(tokens.clone()),
                python: Some(prepared("MODALFLOW_TEST_MODAL_PYTHON").into()),
            }))
            .unwrap();
        let address = format!("http://{}", emulator.tcp_address().unwrap());
        Self {
            folder,
            runtime,
            emulator: Some(emulator),
            address,
            tokens,
        }
    }

    /// Points a program at it.
    pub(crate) fn with_token(&self, command: &mut Command) {
        self.without_token(command);
        command
            .env("MODAL_TOKEN_ID", &self.tokens.id)
            .env("MODAL_TOKEN_SECRET", &self.tokens.secret);
    }

    /// The same for one who has not signed in.
    pub(crate) fn without_token(&self, command: &mut Command) {
        command
            .env("MODAL_SERVER_URL", &self.address)
            .env("MODAL_CONFIG_PATH", self.folder.path().join("none.toml"))
            .env_remove("MODAL_TOKEN_ID")
            .env_remove("MODAL_TOKEN_SECRET")
            .env_remove("MODAL_ENVIRONMENT");
    }

    /// Modal's own command line.
    pub(crate) fn modal(&self, arguments: &[&str], folder: &Path) -> String {
        let mut command = Command::new(prepared("MODALFLOW_TEST_MODAL_PYTHON"));
        command
            .args(["-m", "modal"])
            .args(arguments)
            .current_dir(folder)
            .env("COLUMNS", "200");
        self.with_token(&mut command);
        Ran::of(command).ok()
    }

    /// A script of the SDK.
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(prepared("MODALFLOW_TEST_MODAL_PYTHON"));
        command.args(["-c", script]).args(arguments);
        self.with_token(&mut command);
        Ran::of(command).ok()
    }

    /// A line to it that has faults, and the address of its other end.
    pub(crate) fn behind(&self, plan: Arc<Plan>) -> (BadLine, String) {
        let socket = self.folder.path().join("modal.sock");
        let line = self
            .runtime
            .block_on(async { BadLine::before(&socket, plan) });
        (line, format!("unix://{}", socket.display()))
    }

    pub(crate) fn recorded(&self) -> Recorded {
        self.emulator.as_ref().unwrap().recorded()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(emulator) = self.emulator.take() {
            let stop = Stop::Terminate {
                grace: Duration::ZERO,
            };
            let _ = self.runtime.block_on(emulator.stop(stop));
        }
    }
}

/// An environment on it.
pub(crate) struct Environment<'a> {
    pub(crate) cloud: &'a Cloud,
    pub(crate) name: String,
    pub(crate) config: PathBuf,
    pub(crate) database: Database,
    /// Modal's environment that it is deployed to.
    pub(crate) there: &'static str,
}

impl<'a> Environment<'a> {
    /// Writes its config; nothing is created yet.
    pub(crate) fn prepare(cloud: &'a Cloud, name: &str, more: &str) -> Self {
        let database = cloud.runtime.block_on(Database::create());
        let config = cloud.folder.path().join(format!("{name}.yaml"));
        let text = format!(
            "placement: modal\ndatabase:\n  connection_string: {}\n{more}\n  airflow_python: {}\n",
            database.url,
            prepared("MODALFLOW_TEST_PYTHON")
        );
        std::fs::write(&config, text).unwrap();
        Self {
            cloud,
            name: name.to_owned(),
            config,
            database,
            there: "main",
        }
    }

    pub(crate) fn unique() -> String {
        format!("m-{}", &Uuid::new_v4().simple().to_string()[..12])
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = modalflow(arguments);
        command.env("MODALFLOW_ENV", &self.name);
        self.cloud.with_token(&mut command);
        Ran::of(command)
    }

    pub(crate) fn create(&self, more: &[&str]) -> Ran {
        let mut arguments = vec!["create", "--config", self.config.to_str().unwrap()];
        arguments.extend(more);
        self.run(&arguments)
    }

    /// As [`Self::create`] where the user's settings name one of Modal's environments.
    pub(crate) fn create_in_modals_environment(&self, name: &str) -> Ran {
        let mut command = modalflow(["create", "--config"]);
        command.arg(&self.config).env("MODALFLOW_ENV", &self.name);
        self.cloud.with_token(&mut command);
        command.env("MODAL_ENVIRONMENT", name);
        Ran::of(command)
    }

    pub(crate) fn upload(&self, path: &Path) {
        let uploaded = self.run(&[
            "dags",
            "create",
            "--output",
            "json",
            "--file",
            path.to_str().unwrap(),
        ]);
        for dag in uploaded.json().as_array().unwrap() {
            let dag_id = dag["dag_id"].as_str().unwrap();
            let _ = self.run(&["dags", "unpause", "--dag-id", dag_id]).ok();
        }
    }

    /// Runs a DAG to its end; answers the run's id and its state.
    pub(crate) fn trigger(&self, dag_id: &str) -> (String, String) {
        self.trigger_asking(dag_id, None)
    }

    /// The same where ticks are asked for now and then: nobody reports the end of what died.
    pub(crate) fn trigger_asking(&self, dag_id: &str, ticks: Option<Duration>) -> (String, String) {
        let made = self.run(&["dags", "trigger", "--dag-id", dag_id, "--output", "json"]);
        let run_id = made.json()[0]["run_id"].as_str().unwrap().to_owned();
        let began = Instant::now();
        let mut asked = began;
        loop {
            let listed = self.run(&["runs", "list", "--dag-id", dag_id, "--output", "json"]);
            let rows = listed.json();
            let row = rows
                .as_array()
                .unwrap()
                .iter()
                .find(|row| row["run_id"] == run_id.as_str())
                .unwrap()
                .clone();
            let state = row["state"].as_str().unwrap().to_owned();
            if state == "success" || state == "failed" {
                return (run_id, state);
            }
            assert!(
                began.elapsed() < PATIENCE,
                "run {run_id} is {state}:\n{}\n{}",
                self.run(&["tasks", "list", "--dag-id", dag_id]),
                self.cloud.modal(
                    &[
                        "app",
                        "logs",
                        &format!("modalflow-{}", self.name),
                        "--env",
                        self.there,
                    ],
                    Path::new("/")
                ),
            );
            if ticks.is_some_and(|every| asked.elapsed() > every) {
                asked = Instant::now();
                let _ = self.run(&["tick"]).ok();
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    pub(crate) fn log(&self, dag_id: &str, task_id: &str) -> String {
        self.run(&["logs", "--dag-id", dag_id, "--task-id", task_id])
            .ok()
    }

    /// Takes it away; what it said.
    pub(crate) fn destroy(&self) -> Ran {
        self.run(&["destroy", "--yes"])
    }
}

impl Drop for Environment<'_> {
    fn drop(&mut self) {
        // A second time where the test has done it: then it is not known any more.
        let _ = self.destroy();
        let database = Database {
            name: self.database.name.clone(),
            url: self.database.url.clone(),
            pool: self.database.pool.clone(),
        };
        self.cloud.runtime.block_on(database.drop());
    }
}

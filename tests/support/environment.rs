//! An environment of one test.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{Database, Ran, Serving, modalflow};

/// How long a run may take before a test gives up; long, because the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(600);

/// An environment with its database; both go when the test ends.
pub struct TestHost {
    pub name: String,
    pub database: Database,
    /// `env show --output json`
    pub shown: Value,
    /// The DAG files of the tests.
    pub files: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl TestHost {
    /// Makes one with default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// Makes one with more lines in its config.yaml.
    ///
    /// # Panics
    /// When `create` fails.
    #[must_use]
    pub fn with_config(more: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let database = runtime.block_on(Database::create());
        let name = format!("t-{}", &Uuid::new_v4().simple().to_string()[..12]);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        let text = format!("database:\n  connection_string: {}\n{more}", database.url);
        std::fs::write(&config, text).unwrap();
        let mut create = modalflow(["create", "--env", &name, "--config"]);
        create.arg(&config);
        let _ = Ran::of(create).ok();
        let show = modalflow(["env", "show", "--env", &name, "--output", "json"]);
        let shown = Ran::of(show).json();
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("dags");
        Self {
            name,
            database,
            shown,
            files,
            runtime,
        }
    }

    /// Runs a command on this environment.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = modalflow(arguments);
        command.env("MODALFLOW_ENV", &self.name);
        Ran::of(command)
    }

    /// Uploads DAG files of `tests/dags` and unpauses every DAG in them.
    pub fn upload(&self, files: &[&str]) {
        let paths: Vec<PathBuf> = files.iter().map(|file| self.files.join(file)).collect();
        self.upload_paths(&paths);
    }

    /// Uploads files from anywhere and unpauses every DAG in them.
    ///
    /// # Panics
    /// When one of them is refused.
    pub fn upload_paths(&self, paths: &[PathBuf]) {
        let mut arguments = vec!["dags", "create", "--output", "json"];
        for path in paths {
            arguments.extend(["--file", path.to_str().unwrap()]);
        }
        for dag in self.run(&arguments).json().as_array().unwrap() {
            let _ = self
                .run(&[
                    "dags",
                    "unpause",
                    "--dag-id",
                    dag["dag_id"].as_str().unwrap(),
                ])
                .ok();
        }
    }

    /// Starts `serve`.
    #[must_use]
    pub fn serve(&self) -> Serving {
        Serving::start(&self.name)
    }

    /// Makes a run; answers its id.
    #[must_use]
    pub fn trigger(&self, dag_id: &str, more: &[&str]) -> String {
        let mut arguments = vec!["dags", "trigger", "--dag-id", dag_id, "--output", "json"];
        arguments.extend(more);
        self.run(&arguments).json()[0]["run_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until a run has ended; answers its state.
    ///
    /// # Panics
    /// When it takes too long; shows the task instances.
    #[must_use]
    pub fn wait(&self, dag_id: &str, run_id: &str) -> String {
        let began = Instant::now();
        loop {
            let state: Option<String> = self
                .block(
                    sqlx::query_scalar(
                        "SELECT state FROM dag_run WHERE dag_id = $1 AND run_id = $2",
                    )
                    .bind(dag_id)
                    .bind(run_id)
                    .fetch_optional(self.pool()),
                )
                .unwrap();
            match state.as_deref() {
                Some("success" | "failed") => return state.unwrap(),
                _ if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(50)),
                other => panic!(
                    "run {run_id} of {dag_id} is {other:?} after {PATIENCE:?}:\n{}",
                    self.tasks(dag_id, run_id)
                ),
            }
        }
    }

    /// The task instances of a run, a line each: id, state, try.
    #[must_use]
    pub fn tasks(&self, dag_id: &str, run_id: &str) -> String {
        let rows: Vec<(String, i32, Option<String>, i32)> = self
            .block(
                sqlx::query_as(
                    "SELECT task_id, map_index, state, try_number FROM task_instance \
                  WHERE dag_id = $1 AND run_id = $2 ORDER BY task_id, map_index",
                )
                .bind(dag_id)
                .bind(run_id)
                .fetch_all(self.pool()),
            )
            .unwrap();
        rows.iter()
            .map(|(task, map_index, state, try_number)| {
                let index = if *map_index < 0 {
                    String::new()
                } else {
                    format!("[{map_index}]")
                };
                format!(
                    "{task}{index} {} {try_number}\n",
                    state.as_deref().unwrap_or("-")
                )
            })
            .collect()
    }

    /// The value of an XCom.
    #[must_use]
    pub fn xcom(&self, dag_id: &str, run_id: &str, task_id: &str) -> Value {
        self.run(&[
            "xcom",
            "get",
            "--dag-id",
            dag_id,
            "--run-id",
            run_id,
            "--task-id",
            task_id,
        ])
        .json()
    }

    /// A folder of the environment: `volume`, `dags`, `logs`, `xcom`, `root`.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        PathBuf::from(self.shown[name].as_str().unwrap())
    }

    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// Waits for a question to the database.
    pub fn block<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("MODALFLOW_TEST_KEEP").is_some() {
            eprintln!("kept environment {} on {}", self.name, self.database.url);
            return;
        }
        let _ = Ran::of(modalflow(["destroy", "--yes", "--env", &self.name]));
        let (name, url, pool) = (
            self.database.name.clone(),
            self.database.url.clone(),
            self.database.pool.clone(),
        );
        self.runtime.block_on(Database { name, url, pool }.drop());
    }
}

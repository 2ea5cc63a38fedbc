//! A worker's surroundings for tests: a fake Execution API, a volume in a temporary folder, the real plugins, a real Airflow.

pub(crate) mod fake_api;

use std::{path::PathBuf, sync::Arc};

use fake_api::{FakeApi, Recorded, TaskInstance};
use serde_json::{Value, json};
use supervisor::{ExecuteTask, Limits, Supervisor, SupervisorKind, TaskOutcome, WorkerConfig};
use tokio_util::sync::CancellationToken;

/// The Python with Airflow that `tests/run` makes.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("MODALFLOW_TEST_PYTHON").map(PathBuf::from).expect(
        "MODALFLOW_TEST_PYTHON is not set: it names a Python with Airflow 3.3.2\nhint: run the tests through `tests/run`, which makes one",
    )
}

pub(crate) fn python_files() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../python")
}

pub(crate) struct House {
    pub(crate) api: FakeApi,
    pub(crate) volume: tempfile::TempDir,
    pub(crate) supervisor: Option<Arc<Supervisor>>,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let api = FakeApi::start();
        let volume = tempfile::tempdir().unwrap();
        let config = config(&api, volume.path(), change);
        let supervisor = Some(Arc::new(Supervisor::start(&config).await.unwrap()));
        Self {
            api,
            volume,
            supervisor,
        }
    }

    pub(crate) fn without_supervisor() -> Self {
        Self {
            api: FakeApi::start(),
            volume: tempfile::tempdir().unwrap(),
            supervisor: None,
        }
    }

    fn supervisor(&self) -> Arc<Supervisor> {
        Arc::clone(self.supervisor.as_ref().unwrap())
    }

    /// Makes a queued task instance and runs its try.
    pub(crate) async fn run(
        &self,
        task_id: &str,
        change: impl FnOnce(&mut TaskInstance),
    ) -> Ran<'_> {
        self.run_mapped(task_id, -1, change).await
    }

    pub(crate) async fn run_mapped(
        &self,
        task_id: &str,
        map_index: i32,
        change: impl FnOnce(&mut TaskInstance),
    ) -> Ran<'_> {
        let ti = self.queue(task_id, map_index, change);
        let outcome = self
            .supervisor()
            .run_task(ti.workload(), CancellationToken::new())
            .await;
        ti.ran(outcome)
    }

    pub(crate) fn queue(
        &self,
        task_id: &str,
        map_index: i32,
        change: impl FnOnce(&mut TaskInstance),
    ) -> Queued<'_> {
        let id = uuid::Uuid::now_v7().to_string();
        let mut ti = TaskInstance {
            state: "queued".to_owned(),
            ..TaskInstance::default()
        };
        change(&mut ti);
        self.api.world().task_instances.insert(id.clone(), ti);
        Queued {
            house: self,
            id,
            task_id: task_id.to_owned(),
            map_index,
        }
    }
}

/// The configuration of a worker in the test's surroundings.
pub(crate) fn config(
    api: &FakeApi,
    volume: &std::path::Path,
    change: impl FnOnce(&mut WorkerConfig),
) -> WorkerConfig {
    let home = volume.join("airflow-home");
    std::fs::create_dir_all(&home).unwrap();
    let mut config: WorkerConfig = serde_json::from_value(json!({
        "python": python(),
        "python_files": python_files(),
        "environment": {"AIRFLOW_HOME": home},
        "execution_api_url": api.url(),
        "volume": volume,
        "dags": PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dags"),
        "bundle_name": "trial-dags",
        "plugins": {"cache": PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache")},
    }))
    .unwrap();
    config.limits = Limits {
        heartbeat_interval_seconds: 0.5,
        escalation_seconds: 1.0,
        xcom_max_bytes: 32 << 20,
        ..Limits::default()
    };
    change(&mut config);
    config
}

pub(crate) fn airflow_supervisor(config: &mut WorkerConfig) {
    config.supervisor = SupervisorKind::Airflow;
}

pub(crate) struct Queued<'a> {
    pub(crate) house: &'a House,
    pub(crate) id: String,
    task_id: String,
    map_index: i32,
}

impl<'a> Queued<'a> {
    pub(crate) fn workload(&self) -> ExecuteTask {
        ExecuteTask::from_json(&self.workload_json()).unwrap()
    }

    pub(crate) fn workload_json(&self) -> String {
        let mapped = if self.map_index >= 0 {
            format!("map_index={}/", self.map_index)
        } else {
            String::new()
        };
        json!({
            "token": format!("workload token of {}", self.id),
            "dag_rel_path": "trial.py",
            "bundle_info": {"name": "trial-dags", "version": null},
            "log_path": format!("dag_id=trial/run_id=run 1/task_id={}/{mapped}attempt=1.log", self.task_id),
            "ti": {
                "id": self.id, "task_id": self.task_id, "dag_id": "trial", "run_id": "run 1", "try_number": 1,
                "map_index": self.map_index, "dag_version_id": "00000000-0000-0000-0000-000000000001", "pool_slots": 1,
                "priority_weight": 1, "queue": "default", "context_carrier": {}, "hostname": "",
            },
            "type": "ExecuteTask",
        })
        .to_string()
    }

    /// Starts the try in the background.
    pub(crate) fn start(&self, cancel: &CancellationToken) -> tokio::task::JoinHandle<TaskOutcome> {
        let (supervisor, workload, cancel) =
            (self.house.supervisor(), self.workload(), cancel.clone());
        tokio::spawn(async move { supervisor.run_task(workload, cancel).await })
    }

    pub(crate) fn ran(self, outcome: TaskOutcome) -> Ran<'a> {
        Ran { ti: self, outcome }
    }

    /// The requests about this task instance: method, last part of the path, state.
    pub(crate) fn calls(&self) -> Vec<String> {
        let about = |request: &Recorded| request.path.contains(&self.id);
        let short = |request: Recorded| {
            let what = request.path.rsplit('/').next().unwrap().to_owned();
            match request.body["state"].as_str() {
                Some(state) if what == "state" => format!("{what} {state}"),
                _ => what,
            }
        };
        self.house
            .api
            .requests(about)
            .into_iter()
            .map(short)
            .collect()
    }

    pub(crate) fn log_text(&self) -> String {
        let mapped = if self.map_index >= 0 {
            format!("map_index={}/", self.map_index)
        } else {
            String::new()
        };
        let path = format!(
            "logs/dag_id=trial/run_id=run%201/task_id={}/{mapped}attempt=1.log",
            self.task_id
        );
        std::fs::read_to_string(self.house.volume.path().join(path)).unwrap_or_default()
    }

    /// Waits until the log holds `text`.
    pub(crate) async fn log_has(&self, text: &str) {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.log_text().contains(text) {
            assert!(
                tokio::time::Instant::now() < until,
                "no {text:?} in\n{}",
                self.log_text()
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The process that started the process.
pub(crate) fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// Whether the process runs: one that waits to be reaped does not.
pub(crate) fn is_alive(pid: nix::unistd::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

pub(crate) struct Ran<'a> {
    pub(crate) ti: Queued<'a>,
    pub(crate) outcome: TaskOutcome,
}

impl Ran<'_> {
    /// The state in the server, the outcome's word for it, the exit code.
    pub(crate) fn end(&self) -> (String, &'static str, Option<i32>) {
        let state = self.ti.house.api.world().task_instances[&self.ti.id]
            .state
            .clone();
        (state, self.outcome.state.as_str(), self.outcome.exit)
    }

    pub(crate) fn log(&self) -> Vec<Value> {
        self.ti
            .log_text()
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    /// The lines whose logger is `logger`.
    pub(crate) fn said(&self, logger: &str) -> Vec<String> {
        self.log()
            .iter()
            .filter(|line| line["logger"] == logger)
            .map(|line| line["event"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The last line whose event contains `text`.
    pub(crate) fn line(&self, text: &str) -> Value {
        let found = self.log().into_iter().rfind(|line| {
            line["event"]
                .as_str()
                .is_some_and(|event| event.contains(text))
        });
        found.unwrap_or_else(|| panic!("no {text:?} in\n{}", self.ti.log_text()))
    }
}

//! The worker as a container of the emulator: a process of its own, which is this test binary started again.

use std::{path::Path, time::Duration};

use ciborium::{Value, cbor};
use emulator::{Config, Emulator, FunctionSpec, Listen};
use modal_api::{CallResult, CallStatus, Client, Credentials, FunctionCall, GenericStatus};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use supervisor::{CONFIG_VARIABLE, WorkerConfig};
use tokio::time::{Instant, sleep};

use crate::support::{self, House, Queued};

const LONG: Duration = Duration::from_secs(60);

/// Not a test: what the emulator starts.
#[test]
fn container_program() {
    if std::env::var_os("MODAL_TASK_ID").is_none() || std::env::var_os(CONFIG_VARIABLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(supervisor::worker::run(
            WorkerConfig::from_environment().unwrap(),
        ))
        .unwrap();
}

struct Modal {
    house: House,
    folder: tempfile::TempDir,
    emulator: Option<Emulator>,
    client: Client,
    function_id: String,
}

impl Modal {
    async fn start(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let house = House::without_supervisor();
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let config = support::config(&house.api, house.volume.path(), change);
        let path = folder.path().join("worker.json");
        std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
        let emulator = Emulator::start(emulator_config(folder.path()))
            .await
            .unwrap();
        emulator.deploy(function(folder.path())).await.unwrap();
        let url = format!("unix://{}", folder.path().join("e.sock").display());
        let client = Client::connect(url.parse().unwrap(), Credentials::local()).unwrap();
        let function_id = client
            .function_get("app", "run_task", "")
            .await
            .unwrap()
            .function_id;
        Self {
            house,
            folder,
            emulator: Some(emulator),
            client,
            function_id,
        }
    }

    /// Kills the emulator, or as good as: its containers live on.
    fn crash(&mut self) {
        self.emulator = None;
    }

    async fn restart(&mut self) {
        let emulator = Emulator::start(emulator_config(self.folder.path()))
            .await
            .unwrap();
        emulator.deploy(function(self.folder.path())).await.unwrap();
        self.emulator = Some(emulator);
    }

    async fn spawn(&self, workload: Value) -> FunctionCall {
        let arguments = Value::Array(vec![cbor!({"workload" => workload}).unwrap()]);
        self.client
            .spawn(
                &self.function_id,
                arguments,
                Value::Map(Vec::new()),
                uuid::Uuid::new_v4(),
            )
            .await
            .unwrap()
    }

    async fn spawn_task(&self, task: &Queued<'_>) -> FunctionCall {
        self.spawn(Value::from(task.workload_json())).await
    }

    async fn result(&self, call: &FunctionCall) -> CallResult {
        let until = Instant::now() + LONG;
        loop {
            match self
                .client
                .outputs(&call.function_call_id, Duration::from_secs(2))
                .await
                .unwrap()
            {
                CallStatus::Ended(result) => return result,
                other => assert!(
                    Instant::now() < until,
                    "{other:?}\n{}",
                    self.container_log()
                ),
            }
        }
    }

    fn container_log(&self) -> String {
        let files = std::fs::read_dir(self.folder.path().join("logs"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .map(|file| std::fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }
}

fn emulator_config(folder: &Path) -> Config {
    Config {
        state_dir: folder.join("state"),
        socket_dir: folder.join("s"),
        listen: Listen {
            unix: Some(folder.join("e.sock")),
            tcp: None,
            beyond_loopback: false,
        },
        tokens: None,
        python: None,
    }
}

fn function(folder: &Path) -> FunctionSpec {
    let program = std::env::current_exe().unwrap().into_os_string();
    let command = vec![
        program,
        "worker::container_program".into(),
        "--exact".into(),
        "--nocapture".into(),
    ];
    let mut spec = FunctionSpec::new(
        "app",
        "run_task",
        command,
        folder.to_owned(),
        folder.join("logs"),
    );
    spec.max_containers = 1;
    spec.max_concurrent_inputs = 8;
    spec.env
        .insert(CONFIG_VARIABLE.into(), folder.join("worker.json").into());
    spec
}

fn sleep_for(seconds: &str) -> impl FnOnce(&mut WorkerConfig) {
    let seconds = seconds.to_owned();
    move |config| {
        config.environment.insert("TRIAL_SLEEP".to_owned(), seconds);
    }
}

/// The runner of a task that is running, its fork server and its worker.
fn processes(task: &Queued<'_>) -> [Pid; 3] {
    let run = task
        .house
        .api
        .requests(|request| request.path.ends_with(&format!("{}/run", task.id)))
        .remove(0);
    let runner = i32::try_from(run.body["pid"].as_i64().unwrap()).unwrap();
    let fork_server = support::parent_of(runner);
    [runner, fork_server, support::parent_of(fork_server)].map(Pid::from_raw)
}

fn returned(state: &str, exit: i32) -> Option<Value> {
    Some(cbor!({"exit" => exit, "state" => state}).unwrap())
}

fn state_of(task: &Queued<'_>) -> String {
    task.house.api.world().task_instances[&task.id]
        .state
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_run_at_once_and_answered() {
    let modal = Modal::start(sleep_for("3")).await;
    let push = modal.house.queue("push", -1, |_| {});
    let fail = modal.house.queue("fail", -1, |_| {});
    let sleep = modal.house.queue("sleep", -1, |_| {});
    let slow = modal.spawn_task(&sleep).await;
    let calls = [
        modal.spawn_task(&push).await,
        modal.spawn_task(&fail).await,
        modal.spawn(Value::from(1)).await,
    ];
    assert_eq!(modal.result(&calls[0]).await.value, returned("success", 0));
    assert_eq!(modal.result(&calls[1]).await.value, returned("failed", 0));
    let broken = modal.result(&calls[2]).await;
    assert_eq!(
        (broken.status, broken.exception.as_str()),
        (GenericStatus::Failure, "the input has no text `workload`")
    );
    assert_eq!(modal.result(&slow).await.value, returned("success", 0));
    let hostnames: Vec<_> = modal
        .house
        .api
        .requests(|request| request.path.ends_with("/run"))
        .iter()
        .map(|request| request.body["hostname"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        hostnames[0].starts_with("ta-") && hostnames.iter().all(|name| *name == hostnames[0]),
        "{hostnames:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_input_ends_its_task_alone() {
    let modal = Modal::start(sleep_for("6")).await;
    let [doomed, spared] = [
        modal.house.queue("sleep", 0, |_| {}),
        modal.house.queue("sleep", 1, |_| {}),
    ];
    let calls = [
        modal.spawn_task(&doomed).await,
        modal.spawn_task(&spared).await,
    ];
    doomed.log_has("sleeping").await;
    spared.log_has("sleeping").await;
    modal
        .client
        .cancel(&calls[0].function_call_id, false)
        .await
        .unwrap();
    assert_eq!(
        modal.result(&calls[0]).await.status,
        GenericStatus::Terminated
    );
    assert_eq!(modal.result(&calls[1]).await.value, returned("success", 0));
    assert_eq!(
        [state_of(&doomed), state_of(&spared)],
        ["running", "success"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_running_tasks_end_in_peace() {
    let modal = Modal::start(sleep_for("4")).await;
    let task = modal.house.queue("sleep", -1, |_| {});
    let call = modal.spawn_task(&task).await;
    task.log_has("sleeping").await;
    kill(processes(&task)[2], Signal::SIGTERM).unwrap();
    assert_eq!(modal.result(&call).await.value, returned("success", 0));
    assert_eq!(state_of(&task), "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_leaves_no_task_behind() {
    let modal = Modal::start(sleep_for("60")).await;
    let task = modal.house.queue("sleep", -1, |_| {});
    let call = modal.spawn_task(&task).await;
    task.log_has("sleeping").await;
    let [runner, fork_server, worker] = processes(&task);
    kill(worker, Signal::SIGKILL).unwrap();
    assert_eq!(modal.result(&call).await.status, GenericStatus::Failure);
    let until = Instant::now() + Duration::from_secs(10);
    while [runner, fork_server]
        .iter()
        .any(|pid| support::is_alive(*pid))
    {
        assert!(
            Instant::now() < until,
            "processes go on without their worker"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_that_comes_back_gets_the_output() {
    let mut modal = Modal::start(sleep_for("3")).await;
    let task = modal.house.queue("sleep", -1, |_| {});
    let task_id = task.id.clone();
    let call = modal.spawn_task(&task).await;
    task.log_has("sleeping").await;
    modal.crash();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        modal.house.api.world().task_instances[&task_id].state,
        "success"
    );
    modal.restart().await;
    assert_eq!(modal.result(&call).await.value, returned("success", 0));
}

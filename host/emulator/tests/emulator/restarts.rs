//! The emulator is killed, stopped, started again; nothing is lost and nothing runs twice.

use std::{
    fs::OpenOptions,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ciborium::cbor;
use emulator::{Emulator, Stop};
use modal_api::{Client, FunctionCall, GenericStatus};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{
    World, client, config, lines, processes_in, result, spawn, spec, summary, until,
};

/// An emulator in a process of its own.
struct Victim {
    folder: TempDir,
    process: Child,
    client: Client,
    function_id: String,
}

impl Victim {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = launch(folder.path()).await;
        let client = client(folder.path());
        let function_id = client
            .function_get("app", "work", "")
            .await
            .unwrap()
            .function_id;
        Self {
            folder,
            process,
            client,
            function_id,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_file(self.path().join("ready")).unwrap();
    }

    async fn start_again(&mut self) {
        self.process = launch(self.path()).await;
    }

    async fn end(mut self) {
        self.kill();
        let emulator = Emulator::start(config(self.path())).await.unwrap();
        emulator
            .stop(Stop::Terminate {
                grace: Duration::ZERO,
            })
            .await
            .unwrap();
        assert_eq!(processes_in(self.path()), Vec::<i32>::new());
    }
}

async fn launch(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["programs::emulator_program", "--exact", "--nocapture"])
        .env("EMULATOR_FOLDER", folder);
    let process = command.stdout(Stdio::null()).spawn().unwrap();
    let ready = folder.join("ready");
    until("the emulator is ready", || ready.exists()).await;
    process
}

async fn append(victim: &Victim, pause: u32) -> (FunctionCall, std::path::PathBuf) {
    let path = victim.path().join("starts");
    let call = spawn(
        &victim.client,
        &victim.function_id,
        "append",
        format!("{} {pause}", path.display()),
    )
    .await;
    until("the call has begun", || lines(&path) == 1).await;
    (call, path)
}

#[tokio::test]
async fn a_running_call_survives_a_killed_emulator_and_runs_once() {
    let mut victim = Victim::start().await;
    let (call, path) = append(&victim, 1500).await;
    victim.kill();
    victim.start_again().await;
    assert_eq!(summary(&result(&victim.client, &call).await), "Success 0 ");
    assert_eq!(lines(&path), 1);
    victim.end().await;
}

#[tokio::test]
async fn a_call_that_ends_while_the_emulator_is_away_delivers_its_result_later() {
    let mut victim = Victim::start().await;
    let (call, path) = append(&victim, 100).await;
    victim.kill();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    victim.start_again().await;
    let result = result(&victim.client, &call).await;
    assert_eq!(
        (summary(&result).as_str(), result.value),
        ("Success 0 ", Some("appended".into()))
    );
    assert_eq!(lines(&path), 1);
    victim.end().await;
}

#[tokio::test]
async fn a_container_that_dies_while_the_emulator_is_away_is_noticed() {
    let mut victim = Victim::start().await;
    let (call, _) = append(&victim, 60_000).await;
    victim.kill();
    for pid in processes_in(victim.path()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    victim.start_again().await;
    let result = result(&victim.client, &call).await;
    assert_eq!(
        summary(&result),
        "Failure 0 container ta ended while it was not watched; its exit status is not known"
    );
    victim.end().await;
}

#[tokio::test]
async fn a_container_that_dies_after_the_restart_is_noticed() {
    let mut victim = Victim::start().await;
    let (call, _) = append(&victim, 60_000).await;
    victim.kill();
    victim.start_again().await;
    for pid in processes_in(victim.path()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    assert_eq!(
        result(&victim.client, &call).await.status,
        GenericStatus::Failure
    );
    victim.end().await;
}

#[tokio::test]
async fn a_cancellation_reaches_a_container_across_a_restart() {
    let mut victim = Victim::start().await;
    let call = spawn(&victim.client, &victim.function_id, "sleep", 60_000).await;
    let warm = spawn(&victim.client, &victim.function_id, "echo", 1).await;
    result(&victim.client, &warm).await;
    victim.kill();
    victim.start_again().await;
    victim
        .client
        .cancel(&call.function_call_id, false)
        .await
        .unwrap();
    assert_eq!(
        result(&victim.client, &call).await.status,
        GenericStatus::Terminated
    );
    victim.end().await;
}

#[tokio::test]
async fn keys_and_results_and_waiting_calls_are_there_after_a_restart() {
    let mut victim = Victim::start().await;
    let key = Uuid::new_v4();
    let args = || cbor!(["echo", 1]).unwrap();
    let map = || cbor!({}).unwrap();
    let first = victim
        .client
        .spawn(&victim.function_id, args(), map(), key)
        .await
        .unwrap();
    result(&victim.client, &first).await;
    // Ten run, the others wait.
    let mut calls = Vec::new();
    for _ in 0..15 {
        calls.push(spawn(&victim.client, &victim.function_id, "stubborn", 1000).await);
    }
    victim.kill();
    victim.start_again().await;
    let again = victim
        .client
        .spawn(&victim.function_id, args(), map(), key)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(result(&victim.client, &again).await.value, Some(1.into()));
    for call in &calls {
        assert_eq!(summary(&result(&victim.client, call).await), "Success 0 ");
    }
    victim.end().await;
}

#[tokio::test]
async fn a_journal_cut_in_the_middle_of_a_record_loses_that_record_only() {
    let mut victim = Victim::start().await;
    let done = spawn(&victim.client, &victim.function_id, "echo", 1).await;
    result(&victim.client, &done).await;
    victim.kill();
    let path = victim.path().join("state/journal");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(path.metadata().unwrap().len() - 3).unwrap();
    victim.start_again().await;
    // The last record was the result: the call is given out once more, and ends again.
    assert!(victim.path().join("state/journal.torn").exists());
    assert_eq!(result(&victim.client, &done).await.value, Some(1.into()));
    let next = spawn(&victim.client, &victim.function_id, "echo", 2).await;
    assert_eq!(result(&victim.client, &next).await.value, Some(2.into()));
    victim.end().await;
}

#[tokio::test]
async fn a_stop_that_leaves_lets_containers_finish_for_the_next_life() {
    let mut world = World::new(|_| ()).await;
    let call = world.spawn("sleep", 800).await;
    world.run("echo", 1).await;
    world
        .emulator
        .take()
        .unwrap()
        .stop(Stop::Leave)
        .await
        .unwrap();
    assert_eq!(processes_in(world.folder.path()).len(), 1);
    let next = Emulator::start(config(world.folder.path())).await.unwrap();
    next.deploy(spec(world.folder.path())).await.unwrap();
    assert_eq!(
        result(&world.client, &call).await.value,
        Some("slept".into())
    );
    world.emulator = Some(next);
    world.end().await;
}

#[tokio::test]
async fn a_stop_that_leaves_sends_idle_containers_away() {
    let mut world = World::new(|_| ()).await;
    world.run("echo", 1).await;
    world
        .emulator
        .take()
        .unwrap()
        .stop(Stop::Leave)
        .await
        .unwrap();
    let folder = world.folder.path().to_owned();
    until("the idle container leaves", || {
        processes_in(&folder).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_stop_that_terminates_tells_what_it_ended() {
    let mut world = World::new(|_| ()).await;
    let call = world.spawn("sleep", 60_000).await;
    world.run("echo", 1).await;
    world
        .emulator
        .take()
        .unwrap()
        .stop(Stop::Terminate {
            grace: Duration::from_millis(200),
        })
        .await
        .unwrap();
    assert_eq!(processes_in(world.folder.path()), Vec::<i32>::new());
    let next = Emulator::start(config(world.folder.path())).await.unwrap();
    assert_eq!(
        summary(&result(&world.client, &call).await),
        "Terminated 0 the emulator was stopped"
    );
    next.stop(Stop::Leave).await.unwrap();
}

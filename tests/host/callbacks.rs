//! Callbacks run in a worker, once, with Airflow's context: those of DAGs, and those of tasks whose try was lost.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Serving, TestHost};

struct Journal {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Journal {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            path: folder.path().join("journal"),
            _folder: folder,
        }
    }

    fn conf(&self) -> String {
        serde_json::json!({"journal": self.path}).to_string()
    }

    /// Its lines in alphabetical order.
    fn sorted(&self) -> String {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn wait_for(&self, what: &str, times: usize) {
        let began = Instant::now();
        while self.sorted().matches(what).count() < times {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "no {times} x {what:?} in:\n{}",
                self.sorted()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until no callback is left to run: its row is gone, and that of its call.
fn settle(host: &TestHost) {
    let began = Instant::now();
    loop {
        let left: i64 = host
            .block(
                sqlx::query_scalar(
                    "SELECT (SELECT count(*) FROM callback WHERE type = 'dag_processor') \
                          + (SELECT count(*) FROM modalflow.callback_call)",
                )
                .fetch_one(host.pool()),
            )
            .unwrap();
        if left == 0 {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{left} callbacks are left"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn begin(host: &TestHost, dag: &str) -> (String, Journal) {
    let journal = Journal::new();
    let run = host.trigger(dag, &["--conf", &journal.conf()]);
    (run, journal)
}

fn logged(host: &TestHost, event: &str) -> Vec<String> {
    host.block(
        sqlx::query_scalar("SELECT coalesce(extra, '') FROM log WHERE event = $1 ORDER BY id")
            .bind(event)
            .fetch_all(host.pool()),
    )
    .unwrap()
}

#[test]
fn dag_callbacks_run_once_with_the_context_of_the_last_task() {
    let host = TestHost::new();
    host.upload(&["callbacks.py"]);
    let _serve = host.serve();
    let (succeeded, success) = begin(&host, "callback_success");
    let (failed, failure) = begin(&host, "callback_failure");
    let (late, timeout) = begin(&host, "callback_timeout");
    assert_eq!(host.wait("callback_success", &succeeded), "success");
    assert_eq!(host.wait("callback_failure", &failed), "failed");
    assert_eq!(host.wait("callback_timeout", &late), "failed");
    timeout.wait_for("timed out", 1);
    settle(&host);
    insta::assert_snapshot!(success.sorted(), @r"
    first: leaf[-1] try 1 reason success
    last: leaf[-1] try 1 reason success
    pulled fruit, variable none
    ");
    insta::assert_snapshot!(failure.sorted(), @r"dag failed: fail[-1] try 1 reason task_failure");
    insta::assert_snapshot!(timeout.sorted(), @r"timed out: sleep[-1] try 1 reason timed_out");
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "callback_success",
            "--run-id",
            &succeeded,
            "--callbacks",
        ])
        .ok();
    assert!(log.contains("noting first"), "{log}");
    assert!(log.contains("this callback is broken"), "{log}");
    assert_eq!(logged(&host, "callback failed"), Vec::<String>::new());
}

#[test]
fn a_callback_that_hangs_is_ended_and_holds_up_nothing() {
    let host = TestHost::with_config("executor:\n  callback_timeout: 2\n");
    host.upload(&["callbacks.py"]);
    let _serve = host.serve();
    let (run, journal) = begin(&host, "callback_hangs");
    assert_eq!(host.wait("callback_hangs", &run), "success");
    journal.wait_for("hangs", 1);
    let (other, _journal) = begin(&host, "callback_failure");
    assert_eq!(host.wait("callback_failure", &other), "failed");
    settle(&host);
    assert_eq!(journal.sorted(), "hangs\n");
    insta::assert_debug_snapshot!(logged(&host, "callback failed"), @r#"
    [
        "it ran longer than executor.callback_timeout, 2 s",
    ]
    "#);
}

#[test]
fn a_lost_try_gets_the_callbacks_that_its_worker_could_not_run() {
    let host = TestHost::new();
    host.upload(&["callbacks.py"]);
    let serve = host.serve();
    let (run, journal) = begin(&host, "callback_lost");
    journal.wait_for("try 1 began", 2);
    kill_workers(&serve);
    journal.wait_for("try 2 began", 2);
    // A callback that has begun is not repeated when its worker dies.
    journal.wait_for("task retries", 2);
    settle(&host);
    kill_workers(&serve);
    assert_eq!(host.wait("callback_lost", &run), "failed");
    settle(&host);
    insta::assert_snapshot!(journal.sorted(), @r"
    dag failed: victim[0] try 2 reason task_failure
    task failed: victim[0] try 2 reason None
    task failed: victim[1] try 2 reason None
    task retries: victim[0] try 1 reason None
    task retries: victim[1] try 1 reason None
    victim[0] try 1 began
    victim[0] try 2 began
    victim[1] try 1 began
    victim[1] try 2 began
    ");
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "callback_lost",
            "--run-id",
            &run,
            "--task-id",
            "victim",
            "--map-index",
            "1",
            "--try-number",
            "1",
        ])
        .ok();
    assert!(log.contains("noting task retries"), "{log}");
}

#[test]
fn a_worker_that_dies_in_a_callback_does_not_run_it_again() {
    let host = TestHost::new();
    host.upload(&["callbacks.py"]);
    let serve = host.serve();
    let (run, journal) = begin(&host, "callback_hangs");
    journal.wait_for("hangs", 1);
    kill_workers(&serve);
    settle(&host);
    assert_eq!(host.wait("callback_hangs", &run), "success");
    assert_eq!(journal.sorted(), "hangs\n");
    let why = logged(&host, "callback failed");
    assert!(
        why.len() == 1 && why[0].contains("the worker died"),
        "{why:?}"
    );
}

#[test]
fn a_killed_serve_neither_loses_nor_repeats_a_callback() {
    let host = TestHost::with_config("executor:\n  callback_timeout: 5\n");
    host.upload(&["callbacks.py"]);
    let serve = host.serve();
    let (run, journal) = begin(&host, "callback_hangs");
    assert_eq!(host.wait("callback_hangs", &run), "success");
    // Wherever it is now: asked for, sent out, or running in a worker that goes on alone.
    serve.kill();
    let _serve = host.serve();
    journal.wait_for("hangs", 1);
    settle(&host);
    assert_eq!(journal.sorted(), "hangs\n");
}

#[test]
fn callbacks_of_ordinary_tasks_run_in_their_worker() {
    let host = TestHost::new();
    host.upload(&["callbacks.py"]);
    let _serve = host.serve();
    let (run, journal) = begin(&host, "callback_in_worker");
    assert_eq!(host.wait("callback_in_worker", &run), "failed");
    journal.wait_for("task failure", 1);
    insta::assert_snapshot!(journal.sorted(), @r"
    task execute: fails[-1] try 1 reason None
    task execute: fails[-1] try 2 reason None
    task execute: skips[-1] try 1 reason None
    task execute: succeeds[-1] try 1 reason None
    task failure: fails[-1] try 2 reason None
    task retry: fails[-1] try 1 reason None
    task skipped: skips[-1] try 1 reason None
    task success: succeeds[-1] try 1 reason None
    ");
    // None of them came by the other way.
    assert!(
        !Path::new(&host.folder("logs"))
            .join("dag_id=callback_in_worker")
            .join(format!("run_id={run}"))
            .join("task_id=~callbacks")
            .exists()
    );
}

/// Kills the containers that `serve` has started, with all tasks in them.
fn kill_workers(serve: &Serving) {
    for worker in super::crashes::children(serve.pid()) {
        let _ = nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL);
    }
}

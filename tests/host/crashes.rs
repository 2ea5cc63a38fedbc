//! Killing processes around and inside tasks: nothing is lost, and no try runs twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::TestHost;

/// What the tasks wrote down: how often each try began and ended.
pub(crate) fn journal(path: &Path) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

pub(crate) fn wait_for(path: &Path, what: &str, times: usize) {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().filter(|line| line.contains(what)).count() >= times {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no {times} x {what:?} in {text}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn begin(host: &TestHost, dag: &str) -> (String, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let conf = serde_json::json!({"journal": path}).to_string();
    let run = host.trigger(dag, &["--conf", &conf]);
    (run, path, folder)
}

pub(crate) fn twelve_once() -> BTreeMap<String, usize> {
    let mut expected = BTreeMap::new();
    for what in ["began", "ended"] {
        for index in 0..12 {
            expected.insert(format!("work[{index}] try 1 {what}"), 1);
        }
        expected.insert(format!("finish[-1] try 1 {what}"), 1);
    }
    expected
}

#[test]
fn a_killed_serve_loses_nothing_and_repeats_nothing() {
    let host = TestHost::with_config("executor:\n  parallelism: 4\n");
    host.upload(&["crash.py"]);
    let serve = host.serve();
    let (run, path, _folder) = begin(&host, "crash_around");
    wait_for(&path, "began", 6);
    serve.kill();
    // Longer than a task takes: those that run end while nobody listens.
    std::thread::sleep(Duration::from_secs(2));
    let _serve = host.serve();
    assert_eq!(
        host.wait("crash_around", &run),
        "success",
        "{}",
        host.tasks("crash_around", &run)
    );
    assert_eq!(journal(&path), twelve_once());
}

#[test]
fn ctrl_c_leaves_running_tasks_to_the_next_serve() {
    let host = TestHost::with_config("executor:\n  parallelism: 4\n");
    host.upload(&["crash.py"]);
    let serve = host.serve();
    let (run, path, _folder) = begin(&host, "crash_around");
    wait_for(&path, "began", 6);
    assert_eq!(serve.interrupt(), Some(0));
    let _serve = host.serve();
    assert_eq!(
        host.wait("crash_around", &run),
        "success",
        "{}",
        host.tasks("crash_around", &run)
    );
    assert_eq!(journal(&path), twelve_once());
}

#[test]
fn a_task_that_kills_itself_is_reported_at_once() {
    let host = TestHost::new();
    host.upload(&["crash.py"]);
    let _serve = host.serve();
    let (run, path, _folder) = begin(&host, "crash_inside");
    assert_eq!(host.wait("crash_inside", &run), "failed");
    insta::assert_snapshot!(host.tasks("crash_inside", &run), @r"
    die success 2
    leave failed 1
    ");
    insta::assert_snapshot!(
        journal(&path).keys().map(|line| format!("{line}\n")).collect::<String>(),
        @r"
    die[-1] try 1 began
    die[-1] try 2 began
    die[-1] try 2 ended
    leave[-1] try 1 began
    "
    );
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "crash_inside",
            "--run-id",
            &run,
            "--task-id",
            "die",
            "--try-number",
            "1",
        ])
        .ok();
    assert!(
        log.contains("SIGKILL"),
        "the log says what happened:\n{log}"
    );
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "crash_inside",
            "--run-id",
            &run,
            "--task-id",
            "leave",
        ])
        .ok();
    assert!(log.contains('3'), "the log says the exit code:\n{log}");
}

#[test]
fn a_killed_worker_fails_its_tries_at_once() {
    let host = TestHost::new();
    host.upload(&["crash.py"]);
    let serve = host.serve();
    let (run, path, _folder) = begin(&host, "crash_long");
    wait_for(&path, "began", 1);
    for worker in children(serve.pid()) {
        let _ = nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL);
    }
    let began = Instant::now();
    assert_eq!(host.wait("crash_long", &run), "failed");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "noticed after {:?}",
        began.elapsed()
    );
    let reason: String = host
        .block(
            sqlx::query_scalar("SELECT extra FROM log WHERE dag_id = 'crash_long' AND event = 'failed' AND run_id = $1")
                .bind(&run)
                .fetch_one(host.pool()),
        )
        .unwrap();
    assert!(reason.contains("the worker died"), "{reason}");
    assert!(!journal(&path).contains_key("long[-1] try 1 ended"));
}

/// The processes that `serve` started itself.
pub(crate) fn children(parent: u32) -> Vec<nix::unistd::Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        if after_name.split(' ').nth(1) == Some(&parent.to_string()) {
            found.push(nix::unistd::Pid::from_raw(pid));
        }
    }
    found
}

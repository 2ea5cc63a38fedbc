//! `tick` alone carries a run to its end, and any number of ticks at once do the work of one.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use support::{Ran, TestHost, modalflow};

#[test]
fn a_tick_without_serve_runs_what_it_started() {
    let host = TestHost::new();
    host.upload(&["mapped.py"]);
    let run = host.trigger("mapped_200", &[]);
    let report = host.run(&["tick", "--output", "json"]).json();
    assert_eq!(report["runs_ended"], 1, "{report}");
    assert_eq!(host.wait("mapped_200", &run), "success");
}

/// EmptyOperators end in the tick itself: no call announces their end, and none is waited for.
#[test]
fn a_tick_without_workers_does_not_wait() {
    let host = TestHost::with_config("scheduler:\n  interval_seconds: 86400\n");
    host.upload(&["empty.py"]);
    let run = host.trigger("empty", &[]);
    let report = host.run(&["tick", "--output", "json"]).json();
    assert_eq!(report["runs_ended"], 1, "{report}");
    assert_eq!(report["calls_spawned"], 0, "{report}");
    assert_eq!(host.wait("empty", &run), "success");
}

#[test]
fn many_ticks_at_once_start_each_task_once() {
    let host = TestHost::new();
    host.upload(&["diamonds.py"]);
    let dags: Vec<String> = (0..5).map(|index| format!("diamond_{index:02}")).collect();
    let runs: Vec<String> = dags.iter().map(|dag| host.trigger(dag, &[])).collect();
    let ticks: Vec<_> = (0..6)
        .map(|_| modalflow(["tick", "--env", &host.name]).spawn().unwrap())
        .collect();
    for mut tick in ticks {
        assert!(tick.wait().unwrap().success());
    }
    // Whoever held the seat has carried everything to its end; a guest's work was followed by it.
    let _ = host.run(&["tick"]).ok();
    for (dag, run) in dags.iter().zip(&runs) {
        assert_eq!(host.wait(dag, run), "success");
    }
    let starts: i64 = host
        .block(
            sqlx::query_scalar("SELECT count(*) FROM log WHERE event = 'running'")
                .fetch_one(host.pool()),
        )
        .unwrap();
    assert_eq!(starts, 50);
}

/// The other tick may start calls on our machine: to leave meanwhile would leave them to nobody.
#[test]
fn a_tick_that_finds_another_one_at_work_comes_back() {
    let host = TestHost::new();
    host.upload(&["diamonds.py"]);
    let run = host.trigger("diamond_00", &[]);
    let mut other = host.block(host.pool().begin()).unwrap();
    // The key of `metadata::lease`.
    host.block(
        sqlx::query("SELECT pg_advisory_xact_lock(x'006d6f64616c666c'::bigint)")
            .execute(&mut *other),
    )
    .unwrap();
    let mut tick = modalflow(["tick", "--env", &host.name])
        .env("MODALFLOW_LOG", "debug")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(tick.stderr.take().unwrap()).lines();
    for _ in 0..3 {
        said.find(|line| line.as_ref().unwrap().contains("another tick is at work"))
            .unwrap()
            .unwrap();
    }
    host.block(other.rollback()).unwrap();
    said.for_each(drop);
    assert!(tick.wait().unwrap().success());
    assert_eq!(host.wait("diamond_00", &run), "success");
}

/// Somebody holds the seat and answers no call: what could not be started is put off, and the next tick waits for it.
#[test]
fn a_call_that_is_put_off_is_waited_for() {
    let host = TestHost::new();
    host.upload(&["diamonds.py"]);
    let run = host.trigger("diamond_00", &[]);
    let seat = std::fs::File::create(host.folder("root").join("run/serve.lock")).unwrap();
    seat.lock().unwrap();
    let ran = host.run(&["tick"]);
    assert!(ran.stderr.contains("problem: "), "{ran}");
    let _ = ran.ok();
    drop(seat);
    let _ = host.run(&["tick"]).ok();
    assert_eq!(host.wait("diamond_00", &run), "success");
}

#[test]
fn who_waits_for_a_run_serves_when_the_other_one_leaves() {
    let host = TestHost::new();
    host.upload(&["diamonds.py"]);
    let other = std::fs::File::create(host.folder("root").join("run/serve.lock")).unwrap();
    other.lock().unwrap();
    let mut command = modalflow(["dags", "trigger", "--wait", "--dag-id", "diamond_00"]);
    command.env("MODALFLOW_ENV", &host.name);
    let waiting = std::thread::spawn(move || Ran::of(command).ok());
    let runs = || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM dag_run");
        host.block(count.fetch_one(host.pool())).unwrap()
    };
    while runs() == 0 {
        assert!(!waiting.is_finished());
        std::thread::sleep(Duration::from_millis(50));
    }
    // It looks for the seat right after.
    std::thread::sleep(Duration::from_millis(500));
    drop(other);
    let _ = waiting.join().unwrap();
}

#[test]
fn trigger_and_wait_needs_no_serve() {
    let host = TestHost::new();
    host.upload(&["scheduled.py"]);
    let ran = host.run(&[
        "dags",
        "trigger",
        "--dag-id",
        "hourly_latest",
        "--wait",
        "--output",
        "json",
    ]);
    assert_eq!(ran.json()[0]["state"], "success");
}

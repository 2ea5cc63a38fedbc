//! `tick` alone carries a run to its end, and any number of ticks at once do the work of one.

use support::{TestHost, modalflow};

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

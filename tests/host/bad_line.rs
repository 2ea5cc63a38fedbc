//! The line between the host, its containers and Modal's API is bad: no task is lost, and no try starts twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use support::faults::{BadLine, Fault, modal_socket};
use support::{Serving, TestHost};

use crate::crashes::{begin, journal, twelve_once, wait_for};

/// Every third call meets something; what it meets goes round.
fn every_third(rpc: &str, number: usize) -> Option<Fault> {
    let faults = [
        Fault::AnswerLost,
        Fault::Unavailable,
        Fault::Twice,
        Fault::Throttled,
        Fault::Slow(Duration::from_millis(300)),
    ];
    // A container's heartbeats and calls for input repeat all the time and would take all the faults.
    let is_steady = matches!(rpc, "ContainerHeartbeat" | "FunctionGetOutputs");
    let every = if is_steady { 7 } else { 3 };
    number
        .is_multiple_of(every)
        .then(|| faults[(number / 3) % faults.len()])
}

fn line(host: &TestHost, serve: &Serving) -> BadLine {
    host.block(async { BadLine::before(&modal_socket(serve.pid()), Arc::new(every_third)) })
}

#[test]
fn a_bad_line_loses_nothing_and_repeats_nothing() {
    let host = TestHost::with_config("executor:\n  parallelism: 4\n");
    host.upload(&["crash.py"]);
    let serve = host.serve();
    let line = line(&host, &serve);
    let runs: Vec<_> = (0..3).map(|_| begin(&host, "crash_around")).collect();
    for (run, path, _folder) in &runs {
        assert_eq!(
            host.wait("crash_around", run),
            "success",
            "{:?}",
            line.met()
        );
        assert_eq!(journal(path), twelve_once());
    }
    let met: BTreeMap<Fault, usize> =
        line.met()
            .into_iter()
            .fold(BTreeMap::new(), |mut sum, ((_, fault), times)| {
                *sum.entry(fault).or_default() += times;
                sum
            });
    assert_eq!(met.len(), 5, "each kind of fault was met: {met:?}");
}

#[test]
fn a_bad_line_and_a_killed_server_lose_nothing_and_repeat_nothing() {
    let host = TestHost::with_config("executor:\n  parallelism: 4\n");
    host.upload(&["crash.py"]);
    let serve = host.serve();
    let first = line(&host, &serve);
    let (run, path, _folder) = begin(&host, "crash_around");
    wait_for(&path, "began", 5);
    serve.kill();
    drop(first);
    let serve = host.serve();
    let second = line(&host, &serve);
    assert_eq!(
        host.wait("crash_around", &run),
        "success",
        "{:?}",
        second.met()
    );
    assert_eq!(journal(&path), twelve_once());
}

#[test]
fn a_workspace_that_is_full_delays_tasks_and_costs_them_no_try() {
    let host = TestHost::new();
    host.upload(&["crash.py"]);
    let serve = host.serve();
    let refusals = AtomicUsize::new(3);
    let plan = move |rpc: &str, _| {
        let is_spawn = rpc == "FunctionMap";
        let one_less = |left: usize| left.checked_sub(1);
        (is_spawn && refusals.fetch_update(SeqCst, SeqCst, one_less).is_ok()).then_some(Fault::Full)
    };
    let line = host.block(async { BadLine::before(&modal_socket(serve.pid()), Arc::new(plan)) });
    let (run, path, _folder) = begin(&host, "crash_around");
    assert_eq!(host.wait("crash_around", &run), "success");
    assert_eq!(journal(&path), twelve_once());
    assert_eq!(line.met().values().sum::<usize>(), 3);
    let tries: Vec<i32> = host
        .block(
            sqlx::query_scalar("SELECT DISTINCT try_number FROM task_instance WHERE run_id = $1")
                .bind(&run)
                .fetch_all(host.pool()),
        )
        .unwrap();
    assert_eq!(tries, [1]);
}

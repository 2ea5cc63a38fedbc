//! Containers that are taken away from their tasks: that costs no try, and none starts twice.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use support::faults::modal_socket;
use support::{Serving, TestHost};

use crate::crashes::{begin, children, wait_for};

fn number(host: &TestHost, sql: &'static str, run: &str) -> i64 {
    host.block(sqlx::query_scalar(sql).bind(run).fetch_one(host.pool()))
        .unwrap()
}

fn until(what: &str, is_true: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the call of the only running task, as somebody may who looks at Modal's dashboard.
fn cancel(host: &TestHost, serve: &Serving, run: &str) {
    let call: String = host
        .block(
            sqlx::query_scalar(
                "SELECT external_executor_id FROM task_instance WHERE run_id = $1 AND state = 'running'",
            )
            .bind(run)
            .fetch_one(host.pool()),
        )
        .unwrap();
    let url = format!("unix://{}", modal_socket(serve.pid()).display());
    host.block(async {
        let token = modal_api::Credentials::local();
        let client = modal_api::Client::connect(url.parse().unwrap(), token).unwrap();
        client.cancel(&call, false).await.unwrap();
    });
}

#[test]
fn a_call_that_somebody_cancels_is_started_again_three_times() {
    let host = TestHost::new();
    host.upload(&["platform.py"]);
    let serve = host.serve();
    let (run, path, _folder) = begin(&host, "platform_cancelled");
    for times in 1..=4 {
        wait_for(&path, "began", times);
        cancel(&host, &serve, &run);
    }
    assert_eq!(host.wait("platform_cancelled", &run), "failed");
    insta::assert_snapshot!(host.tasks("platform_cancelled", &run), @"endless failed 4");
    let events: Vec<String> = host
        .block(
            sqlx::query_scalar(
                "SELECT event || ' try ' || try_number FROM log \
                  WHERE run_id = $1 AND event IN ('failed', 'requeued') ORDER BY id",
            )
            .bind(&run)
            .fetch_all(host.pool()),
        )
        .unwrap();
    insta::assert_snapshot!(events.join("\n"), @"
    requeued try 1
    requeued try 2
    requeued try 3
    failed try 4
    ");
}

#[test]
fn an_input_that_comes_twice_leaves_the_try_to_its_first_container() {
    let host = TestHost::new();
    host.upload(&["platform.py"]);
    let serve = host.serve();
    let (run, path, _folder) = begin(&host, "platform_redelivered");
    wait_for(&path, "began", 1);
    for worker in children(serve.pid()) {
        let _ = kill(worker, Signal::SIGKILL);
    }
    // The second container is turned away; whether the first still runs, nobody knows yet.
    until("the second container", || {
        number(
            &host,
            "SELECT count(*) FROM log WHERE run_id = $1 AND event = 'redelivered'",
            &run,
        ) == 1
    });
    let running = "SELECT count(*) FROM task_instance WHERE run_id = $1 AND state = 'running'";
    assert_eq!(number(&host, running, &run), 1);
    // As long as that takes, it has been silent.
    host.block(
        sqlx::query("UPDATE task_instance SET last_heartbeat_at = now() - interval '301 s' WHERE run_id = $1")
            .bind(&run)
            .execute(host.pool()),
    )
    .unwrap();
    assert_eq!(host.wait("platform_redelivered", &run), "success");
    insta::assert_snapshot!(host.tasks("platform_redelivered", &run), @"twice success 2");
    insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @"
    twice try 1 began
    twice try 2 began
    ");
}

#[test]
fn a_rescheduled_sensor_whose_container_never_starts_keeps_its_first_poke() {
    let host = TestHost::new();
    host.upload(&["platform.py"]);
    let serve = host.serve();
    let (run, path, _folder) = begin(&host, "platform_reschedule");
    wait_for(&path, "poked", 1);
    let waiting =
        "SELECT count(*) FROM task_instance WHERE run_id = $1 AND state = 'up_for_reschedule'";
    until("the sensor waits", || number(&host, waiting, &run) == 1);
    let workers = children(serve.pid());
    for worker in &workers {
        kill(*worker, Signal::SIGSTOP).unwrap();
    }
    let sent = "SELECT count(*) FROM task_instance ti JOIN modalflow.dispatch x ON x.ti_id = ti.id \
                 WHERE ti.run_id = $1 AND ti.state = 'queued' AND x.call_id IS NOT NULL";
    until("the sensor is sent out again", || {
        number(&host, sent, &run) == 1
    });
    for worker in &workers {
        kill(*worker, Signal::SIGKILL).unwrap();
    }
    assert_eq!(host.wait("platform_reschedule", &run), "success");
    insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @"
    sensor try 1 poked
    sensor try 1 poked
    ");
}

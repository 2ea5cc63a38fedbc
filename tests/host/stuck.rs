//! A task whose call nobody takes goes back twice, then fails, and calls back.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use support::TestHost;

fn events(host: &TestHost) -> Vec<String> {
    host.block(
        sqlx::query_scalar("SELECT event FROM log WHERE dag_id = 'callback_stuck' AND task_id IS NOT NULL ORDER BY id")
            .fetch_all(host.pool()),
    )
    .unwrap()
}

#[test]
fn a_task_that_nobody_starts_goes_back_twice_and_then_fails() {
    let host = TestHost::new();
    host.upload(&["callbacks.py"]);
    let serve = host.serve();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let conf = serde_json::json!({"journal": path}).to_string();
    // A worker is warm, and then takes nothing more.
    let first = host.trigger("callback_in_worker", &["--conf", &conf]);
    let _ = host.wait("callback_in_worker", &first);
    let workers = super::crashes::children(serve.pid());
    for worker in &workers {
        kill(*worker, Signal::SIGSTOP).unwrap();
    }
    let run = host.trigger("callback_stuck", &["--conf", &conf]);
    let began = Instant::now();
    for round in 1..=3 {
        let aged = loop {
            let aged = host
                .block(
                    sqlx::query(
                        "UPDATE task_instance ti SET queued_dttm = now() - interval '601 s' \
                           FROM modalflow.dispatch x \
                          WHERE ti.dag_id = 'callback_stuck' AND ti.state = 'queued' AND x.ti_id = ti.id \
                            AND x.call_id IS NOT NULL AND ti.queued_dttm > now() - interval '600 s'",
                    )
                    .execute(host.pool()),
                )
                .unwrap()
                .rows_affected();
            if aged == 1 {
                break aged;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}",
                events(&host)
            );
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(aged, 1, "round {round}");
    }
    assert_eq!(host.wait("callback_stuck", &run), "failed");
    insta::assert_debug_snapshot!(events(&host), @r#"
    [
        "stuck in queued reschedule",
        "stuck in queued reschedule",
        "stuck in queued tries exceeded",
    ]
    "#);
    for worker in &workers {
        kill(*worker, Signal::SIGCONT).unwrap();
    }
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    while !lines().contains("stuck:") {
        assert!(began.elapsed() < Duration::from_secs(120), "{}", lines());
        std::thread::sleep(Duration::from_millis(50));
    }
    // The worker is awake again and none of the three calls runs the task.
    insta::assert_snapshot!(lines().lines().filter(|line| line.contains("stuck")).collect::<Vec<_>>().join("\n"), @r"stuck: never_starts[-1] try 1 reason None");
}

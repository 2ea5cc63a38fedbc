//! Real tasks of a real Airflow, supervised by this crate, against an Execution API in memory.

use std::time::Duration;

use crate::support::{self, House, fake_api::TaskInstance};
use serde_json::json;
use tokio_util::sync::CancellationToken;

fn ok(state: &'static str) -> (String, &'static str, Option<i32>) {
    (state.to_owned(), state, Some(0))
}

fn as_made(_: &mut TaskInstance) {}

fn with_retries(ti: &mut TaskInstance) {
    ti.should_retry = true;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_from_task_to_task() {
    let house = House::new().await;
    let push = house
        .run("push", |ti| {
            ti.xcom_keys_to_clear = vec!["return_value".to_owned()]
        })
        .await;
    assert_eq!(push.end(), ok("success"));
    assert_eq!(push.ti.calls(), ["run", "rtif", "state success"]);
    assert_eq!(push.said("task.stdout"), ["hello from push"]);
    let order: Vec<_> = house
        .api
        .requests(|request| request.path.starts_with("/xcoms"))
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(order, ["DELETE", "POST"]);

    let pull = house.run("pull", as_made).await;
    assert_eq!(pull.end(), ok("success"));
    assert_eq!(pull.said("task.stdout"), ["pulled 1 2024 (1, 2)"]);
    let by_name = house.run("by_name", as_made).await;
    assert_eq!(by_name.said("task.stdout"), ["by name 1"]);

    let run = house
        .api
        .requests(|request| request.path.ends_with(&format!("{}/run", push.ti.id)))
        .remove(0);
    assert_eq!(
        run.headers["authorization"],
        format!("Bearer workload token of {}", push.ti.id)
    );
    assert_eq!(run.headers["airflow-api-version"], "2026-06-30");
    assert_eq!(run.headers["correlation-id"].len(), 36);
    assert_eq!(
        (
            run.body["state"].as_str(),
            run.body["pid"].is_i64(),
            run.body["hostname"].is_string()
        ),
        (Some("running"), true, true)
    );
    let state = house
        .api
        .requests(|request| request.path.ends_with(&format!("{}/state", push.ti.id)))
        .remove(0);
    assert_eq!(
        state.headers["authorization"],
        format!("Bearer execution token of {}", push.ti.id)
    );
    let mut body = state.body;
    body["end_date"] = json!("then");
    insta::assert_snapshot!(body, @r#"{"end_date":"then","outlet_events":[],"rendered_map_index":null,"state":"success","task_outlets":[]}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_task_is_reported() {
    let house = House::new().await;
    for (task_id, should_retry, state) in [
        ("fail", false, "failed"),
        ("fail", true, "up_for_retry"),
        ("fail_for_good", true, "failed"),
        ("skip", true, "skipped"),
        ("bash", false, "success"),
        ("trigger", false, "success"),
        ("defer", false, "deferred"),
    ] {
        let ran = house
            .run(task_id, |ti| ti.should_retry = should_retry)
            .await;
        assert_eq!(
            ran.end(),
            ok(state),
            "{task_id} {should_retry}\n{}",
            ran.ti.log_text()
        );
    }
    let trigger = house
        .api
        .requests(|request| request.path.starts_with("/dag-runs/"))
        .remove(0);
    assert_eq!(trigger.path, "/dag-runs/other/made by trigger");
    assert_eq!(trigger.body["conf"], json!({"a": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_dies_is_reported_at_once_and_its_log_says_how() {
    let house = House::new().await;
    let cases = [
        (
            "kill_myself",
            false,
            "failed",
            -9,
            "Process terminated by signal SIGKILL. Likely out of memory error (OOM).",
        ),
        (
            "kill_myself",
            true,
            "up_for_retry",
            -9,
            "Process terminated by signal SIGKILL. Likely out of memory error (OOM).",
        ),
        (
            "leave",
            false,
            "failed",
            3,
            "Process exited abnormally with exit code 3.",
        ),
        (
            "leave",
            true,
            "up_for_retry",
            3,
            "Process exited abnormally with exit code 3.",
        ),
        (
            "leave_silently",
            false,
            "failed",
            0,
            "Process exited without saying how the task has ended.",
        ),
    ];
    for (task_id, should_retry, state, exit, event) in cases {
        let ran = house
            .run(task_id, |ti| ti.should_retry = should_retry)
            .await;
        assert_eq!(
            ran.end(),
            (state.to_owned(), state, Some(exit)),
            "{task_id}"
        );
        let line = ran.line(event);
        assert_eq!(line["state"], state);
        assert!(line["max_rss_mib"].as_u64().unwrap() > 10);
        let report = house
            .api
            .requests(|request| request.path.ends_with(&format!("{}/state", ran.ti.id)))
            .remove(0);
        assert_eq!(
            report.body["retry_reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with(event)),
            should_retry
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_is_taken_or_gone_is_left_alone() {
    let house = House::new().await;
    let taken = json!({"detail": {"reason": "invalid_state", "message": "not queued", "previous_state": "running"}});
    for (status, word) in [
        (409, "already_taken"),
        (404, "already_taken"),
        (410, "already_taken"),
        (403, "not_started"),
    ] {
        let ran = house
            .run("push", |ti| ti.run_answer = Some((status, taken.clone())))
            .await;
        assert_eq!(ran.end(), ("queued".to_owned(), word, None));
        assert_eq!(ran.ti.calls(), ["run"]);
        assert_eq!(ran.ti.log_text(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_the_server_does_not_want_any_more_is_killed() {
    let house = House::new().await;
    for status in [404, 409, 410] {
        let gone = json!({"detail": {"reason": "not_running", "current_state": "failed"}});
        let ran = house
            .run("sleep", |ti| ti.heartbeat_answer = Some((status, gone)))
            .await;
        let (state, word, exit) = ran.end();
        assert_eq!((state.as_str(), word), ("running", "stopped"));
        // A runner that has not yet made its own handler ends at the first signal.
        assert!(matches!(exit, Some(-9 | -15)), "{exit:?}");
        assert!(
            ran.ti.calls().iter().all(|call| !call.starts_with("state")),
            "{:?}",
            ran.ti.calls()
        );
        let line =
            ran.line("Server indicated the task shouldn't be running anymore. Terminating process");
        assert_eq!(line["detail"]["current_state"], "failed");
        ran.line("Task killed!");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_costs_a_running_task_nothing() {
    let house = House::with(|config| {
        config
            .environment
            .insert("TRIAL_SLEEP".to_owned(), "8".to_owned());
    })
    .await;
    let sleep = house.queue("sleep", -1, with_retries);
    let running = sleep.start(&CancellationToken::new());
    sleep.log_has("sleeping").await;
    house.api.go_away();
    // Longer than the task, so that its success too is to be kept.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(!running.is_finished());
    house.api.come_back();
    let ran = sleep.ran(running.await.unwrap());
    assert_eq!(ran.end(), ok("success"));
    assert_eq!(ran.said("task.stdout"), ["sleeping", "slept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_ends_the_task_and_learns_of_it_later() {
    let house = House::with(|config| config.limits.outage_seconds = 2.0).await;
    let sleep = house.queue("sleep", -1, with_retries);
    let running = sleep.start(&CancellationToken::new());
    sleep.log_has("sleeping").await;
    house.api.go_away();
    sleep
        .log_has("The Execution API did not answer a heartbeat for too long")
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    house.api.come_back();
    let ran = sleep.ran(running.await.unwrap());
    assert_eq!(
        ran.end(),
        ("up_for_retry".to_owned(), "up_for_retry", Some(-9))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_its_task() {
    let house = House::new().await;
    let sleep = house.queue("sleep", -1, as_made);
    let cancel = CancellationToken::new();
    let running = sleep.start(&cancel);
    sleep.log_has("sleeping").await;
    cancel.cancel();
    let ran = sleep.ran(running.await.unwrap());
    // Whether that counts as a failure is for the one to say who knows why the call ended.
    assert_eq!(
        (ran.end().0, ran.end().1),
        ("running".to_owned(), "stopped")
    );
    ran.line("The call was cancelled. Terminating process");
    assert_eq!(ran.said("task.stdout"), ["sleeping"]);
}

/// What it had begun elsewhere is ended; that the call was given up is no failure to tell anybody about.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_runs_on_kill_and_no_callback() {
    let house = House::new().await;
    let guarded = house.queue("guarded", -1, as_made);
    let cancel = CancellationToken::new();
    let running = guarded.start(&cancel);
    guarded.log_has("guarding").await;
    cancel.cancel();
    let ran = guarded.ran(running.await.unwrap());
    assert_eq!(
        (ran.end().0, ran.end().1),
        ("running".to_owned(), "stopped")
    );
    assert_eq!(ran.said("task.stdout"), ["guarding", "on_kill"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_arrives_whole_and_a_long_line_is_cut() {
    let house = House::new().await;
    let talk = house.run("talk", as_made).await;
    assert_eq!(talk.end(), ok("success"));
    let lines = talk.said("task.stdout");
    assert_eq!(lines.len(), 40_001);
    assert!(
        lines[..40_000]
            .iter()
            .enumerate()
            .all(|(number, line)| line.starts_with(&format!("line {number:06} xxx")))
    );
    assert!(
        lines[40_000].ends_with(" … [234464 bytes cut]"),
        "{}",
        &lines[40_000][65_000..]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_reach_the_log() {
    let house = House::new().await;
    let variables = [("api_token", "t0ken-of-mine"), ("greeting", "good morning")];
    house
        .api
        .world()
        .variables
        .extend(variables.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let ran = house.run("secrets", as_made).await;
    assert_eq!(ran.end(), ok("success"));
    insta::assert_snapshot!(ran.said("task.stdout").join("\n"), @r"
    password is ***
    variable is ***
    public is good morning
    raw � bytes
    ");
    assert_eq!(ran.said("task.stderr"), ["to stderr"]);
    assert_eq!(ran.said("my.logger"), ["a token: ***", "caught"]);
    assert_eq!(
        ran.line("caught")["error_detail"][0]["exc_type"],
        "ZeroDivisionError"
    );
    let text = ran.ti.log_text();
    assert!(!text.contains("pass-w0rd") && !text.contains("t0ken-of-mine"));
    let line = text.lines().find(|line| line.contains("a token")).unwrap();
    assert!(
        line.starts_with(r#"{"timestamp":"20"#)
            && line.contains(r#"Z","level":"warning","event":"a token: ***","#),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_tasks_keep_their_values_apart() {
    let house = House::new().await;
    house.run("numbers", as_made).await;
    let pushed = house
        .api
        .requests(|request| request.method == "POST" && request.path.contains("/numbers/"))
        .remove(0);
    assert_eq!(
        (pushed.query.as_str(), pushed.body),
        ("mapped_length=3", json!([1, 2, 3]))
    );
    for map_index in 0..3 {
        let ran = house.run_mapped("square", map_index, as_made).await;
        assert_eq!(ran.end(), ok("success"), "{}", ran.ti.log_text());
        assert!(ran.ti.log_text().contains("Pushing xcom"));
    }
    let total = house.run("total", as_made).await;
    assert_eq!(total.said("task.stdout"), ["total 14"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_goes_to_the_volume_and_one_over_the_limit_fails_its_task() {
    let house = House::new().await;
    let pushed = house.run("push_20_mb", as_made).await;
    assert_eq!(
        pushed.end(),
        ok("success"),
        "{}",
        &pushed.ti.log_text()[..2000]
    );
    let request = house
        .api
        .requests(|request| request.method == "POST" && request.path.contains("push_20_mb"))
        .remove(0);
    assert!(
        request.bytes < 2000,
        "{} bytes went over HTTP",
        request.bytes
    );
    assert_eq!(request.headers["modalflow-xcom"], "stored");
    let pulled = house.run("pull_much", as_made).await;
    assert_eq!(pulled.said("task.stdout"), ["pulled 20971520"]);
    let refused = house.run("push_60_mb", as_made).await;
    assert_eq!(refused.end(), ok("failed"));
    assert!(
        refused.ti.log_text().contains("is over the limit of"),
        "{}",
        refused.ti.log_text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_read_written_and_missed() {
    let house = House::new().await;
    let ran = house.run("variables", as_made).await;
    assert_eq!(ran.end(), ok("success"), "{}", ran.ti.log_text());
    let said = ran.said("task.stdout");
    assert_eq!(said[0], "keys ['made/here']");
    assert!(said[1].starts_with("not there:"), "{said:?}");
    assert!(house.api.world().variables.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_leaves_running_does_not_hold_up_its_end() {
    let house = House::new().await;
    let started = std::time::Instant::now();
    let ran = house.run("leave_child", as_made).await;
    assert_eq!(ran.end(), ok("success"));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_run_at_once() {
    let house = House::with(|config| {
        config
            .environment
            .insert("TRIAL_SLEEP".to_owned(), "4".to_owned());
    })
    .await;
    let sleepers: Vec<_> = (0..12)
        .map(|index| house.queue("sleep", index, as_made))
        .collect();
    let started = std::time::Instant::now();
    let running: Vec<_> = sleepers
        .iter()
        .map(|sleeper| sleeper.start(&CancellationToken::new()))
        .collect();
    for (sleeper, running) in sleepers.into_iter().zip(running) {
        assert_eq!(sleeper.ran(running.await.unwrap()).end(), ok("success"));
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_server_that_dies_takes_its_tasks_along_and_is_started_again() {
    let house = House::new().await;
    let sleep = house.queue("sleep", -1, with_retries);
    let running = sleep.start(&CancellationToken::new());
    sleep.log_has("sleeping").await;
    let run = house
        .api
        .requests(|request| request.path.ends_with(&format!("{}/run", sleep.id)))
        .remove(0);
    let runner = i32::try_from(run.body["pid"].as_i64().unwrap()).unwrap();
    let fork_server = nix::unistd::Pid::from_raw(support::parent_of(runner));
    nix::sys::signal::kill(fork_server, nix::sys::signal::Signal::SIGKILL).unwrap();
    let ran = sleep.ran(running.await.unwrap());
    assert_eq!(ran.end(), ("up_for_retry".to_owned(), "up_for_retry", None));
    ran.line("The process that forks tasks has ended, and the task with it.");
    assert_eq!(house.run("push", as_made).await.end(), ok("success"));
}

#[tokio::test(flavor = "multi_thread")]
async fn airflows_own_supervisor_runs_from_the_same_fork_server() {
    let house = House::with(support::airflow_supervisor).await;
    for (task_id, state) in [("push", "success"), ("fail", "failed")] {
        let ran = house.run(task_id, as_made).await;
        assert_eq!(ran.end(), (state.to_owned(), "delegated", Some(0)));
    }
    let log = house
        .volume
        .path()
        .join("logs/dag_id=trial/run_id=run 1/task_id=push/attempt=1.log");
    assert!(
        std::fs::read_to_string(log)
            .unwrap()
            .contains("hello from push")
    );
}

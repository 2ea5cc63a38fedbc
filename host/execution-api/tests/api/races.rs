//! Requests that come twice, too late, or at the same time.

use futures::future::join_all;
use serde_json::json;

use crate::support::{Api, ti};

fn start(hostname: &str, pid: i32, start_date: &str) -> String {
    json!({"state": "running", "hostname": hostname, "unixname": "u", "pid": pid, "start_date": start_date}).to_string()
}

const MORNING: &str = "2024-01-02T05:00:00Z";
const END: &str = "2024-01-02T05:01:00Z";

#[tokio::test]
async fn of_many_starts_at_once_one_runs() {
    let api = Api::start().await;
    // The same hostname and pid, as in two containers that were given one input: only the start differs.
    let starts: Vec<String> = (0..8)
        .map(|n| start("modal", 2, &format!("2024-01-02T05:00:0{n}Z")))
        .collect();
    let answers = join_all(
        starts
            .iter()
            .map(|body| api.ask_as(1, "PATCH", "task-instances/{ti}/run", body)),
    )
    .await;
    let started = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((started, refused), (1, 7));
    assert_eq!(
        api.text("SELECT count(*) FROM log WHERE event = 'running'")
            .await
            .unwrap(),
        "1"
    );
    api.stop().await;
}

#[tokio::test]
async fn a_repeated_start_is_the_same_start() {
    let api = Api::start().await;
    let first = start("h", 7, MORNING);
    let mut lines = Vec::new();
    for body in [
        &first,
        &first,
        &start("h", 7, "2024-01-02T05:00:00.000001Z"),
        &start("h", 8, MORNING),
        &start("other", 7, MORNING),
    ] {
        let answer = api
            .ask_as(1, "PATCH", "task-instances/{ti}/run", body)
            .await;
        lines.push(answer.status.as_u16());
    }
    assert_eq!(lines, [200, 200, 409, 409, 409]);
    api.stop().await;
}

#[tokio::test]
async fn after_a_deferral_too_a_repeated_start_is_the_same_start() {
    let api = Api::start().await;
    let run = "task-instances/{ti}/run";
    api.ask_as(5, "PATCH", run, &start("h", 7, MORNING)).await;
    let defer =
        json!({"state": "deferred", "classpath": "c", "next_method": "m", "next_kwargs": {"a": 1}});
    api.ask_as(5, "PATCH", "task-instances/{ti}/state", &defer.to_string())
        .await;
    api.run_sql(&format!(
        "UPDATE task_instance SET state = 'queued' WHERE id = '{}'",
        ti(5)
    ))
    .await;

    let noon = start("h", 7, "2024-01-02T12:00:00Z");
    let mut statuses = Vec::new();
    for body in [
        &noon,
        &noon,
        &start("h", 7, "2024-01-02T12:00:01Z"),
        &start("h", 7, MORNING),
    ] {
        statuses.push(api.ask_as(5, "PATCH", run, body).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 409, 409]);
    let kept = api
        .text(&format!(
            "SELECT start_date AT TIME ZONE 'UTC' FROM task_instance WHERE id = '{}'",
            ti(5)
        ))
        .await;
    assert_eq!(kept.unwrap(), "2024-01-02 05:00:00");
    api.stop().await;
}

#[tokio::test]
async fn ends_may_be_repeated() {
    let api = Api::start().await;
    let cases = [
        (1, json!({"state": "success", "end_date": END})),
        (2, json!({"state": "failed", "end_date": END})),
        (12, json!({"state": "up_for_retry", "end_date": END})),
        (
            4,
            json!({"state": "up_for_reschedule", "end_date": END, "reschedule_date": "2024-01-02T06:00:00Z"}),
        ),
        (
            5,
            json!({"state": "deferred", "classpath": "c", "next_method": "m"}),
        ),
        (10, json!({"state": "awaiting_input", "next_method": "m"})),
    ];
    for (number, body) in cases {
        api.ask_as(
            number,
            "PATCH",
            "task-instances/{ti}/run",
            &start("h", 7, MORNING),
        )
        .await;
        let wakes = api.wakes();
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let answer = api
                .ask_as(
                    number,
                    "PATCH",
                    "task-instances/{ti}/state",
                    &body.to_string(),
                )
                .await;
            statuses.push(answer.status.as_u16());
        }
        assert_eq!(statuses, [204, 200, 200], "{body}");
        assert_eq!(api.wakes(), wakes + 1, "{body}");
        let logged = format!(
            "SELECT count(*) FROM log l WHERE event = '{}'",
            body["state"].as_str().unwrap()
        );
        assert_eq!(api.text(&logged).await.unwrap(), "1", "{body}");
    }
    assert_eq!(api.text("SELECT count(*) FROM trigger").await.unwrap(), "1");
    assert_eq!(
        api.text("SELECT count(*) FROM task_reschedule")
            .await
            .unwrap(),
        "1"
    );
    assert_eq!(
        api.text("SELECT count(*) FROM task_instance_history")
            .await
            .unwrap(),
        "1"
    );
    api.stop().await;
}

#[tokio::test]
async fn of_different_ends_at_once_one_counts() {
    let api = Api::start().await;
    api.ask_as(
        12,
        "PATCH",
        "task-instances/{ti}/run",
        &start("h", 7, MORNING),
    )
    .await;
    let bodies = [
        json!({"state": "success", "end_date": END}),
        json!({"state": "failed", "end_date": END}),
        json!({"state": "up_for_retry", "end_date": END}),
        json!({"state": "deferred", "classpath": "c", "next_method": "m"}),
    ]
    .map(|body| body.to_string());
    let answers = join_all(
        bodies
            .iter()
            .map(|body| api.ask_as(12, "PATCH", "task-instances/{ti}/state", body)),
    )
    .await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 204).count(),
        1
    );
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer.status.is_client_error())
            .count(),
        3
    );
    assert_eq!(api.wakes(), 1);
    api.stop().await;
}

/// What Airflow's UI does to a running task that is cleared.
const CLEAR: &str = "
    INSERT INTO task_instance_history (task_instance_id, task_id, dag_id, run_id, map_index, try_number, state, pool,
           pool_slots, span_status)
    SELECT id, task_id, dag_id, run_id, map_index, try_number, 'failed', pool, pool_slots, span_status
      FROM task_instance WHERE id = '00000000-0000-7000-8000-000000000001';
    UPDATE task_instance SET id = '00000000-0000-7000-8000-0000000000ff', state = 'restarting'
     WHERE id = '00000000-0000-7000-8000-000000000001'";

#[tokio::test]
async fn after_a_clear_the_old_try_can_do_nothing() {
    let api = Api::start().await;
    api.ask_as(
        1,
        "PATCH",
        "task-instances/{ti}/run",
        &start("h", 7, MORNING),
    )
    .await;
    api.run_sql(CLEAR).await;
    let success = json!({"state": "success", "end_date": END}).to_string();
    let retry = json!({"state": "up_for_retry", "end_date": END}).to_string();
    let skip = json!({"tasks": ["left"]}).to_string();
    let requests = [
        (
            "PUT",
            "task-instances/{ti}/heartbeat",
            r#"{"hostname":"h","pid":7}"#,
        ),
        ("PUT", "task-instances/{ti}/rtif", "{}"),
        ("PATCH", "task-instances/{ti}/state", &success),
        ("PATCH", "task-instances/{ti}/state", &retry),
        ("PATCH", "task-instances/{ti}/run", &start("h", 7, MORNING)),
        ("PATCH", "task-instances/{ti}/skip-downstream", &skip),
        ("PATCH", "task-instances/{ti}/rendered-map-index", "\"x\""),
        ("POST", "xcoms/demo/r1/push/return_value", "1"),
        ("PUT", "store/ti/{ti}/k", r#"{"value":1}"#),
    ];
    let mut lines = Vec::new();
    for (method, path, body) in requests {
        let answer = api.ask_as(1, method, path, body).await;
        lines.push(format!("{method} {path}: {}", answer.line()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    PUT task-instances/{ti}/heartbeat: 410 {"detail":{"message":"Task Instance not found, it may have been moved to the Task Instance History table","reason":"not_found"}}
    PUT task-instances/{ti}/rtif: 410 {"detail":{"message":"Task Instance not found, it may have been moved to the Task Instance History table","reason":"not_found"}}
    PATCH task-instances/{ti}/state: 404 {"detail":{"message":"Task Instance not found","reason":"not_found"}}
    PATCH task-instances/{ti}/state: 404 {"detail":{"message":"Task Instance not found","reason":"not_found"}}
    PATCH task-instances/{ti}/run: 404 {"detail":{"message":"Task Instance not found","reason":"not_found"}}
    PATCH task-instances/{ti}/skip-downstream: 404 {"detail":{"message":"Task Instance not found","reason":"not_found"}}
    PATCH task-instances/{ti}/rendered-map-index: 404 {"detail":"Task Instance not found"}
    POST xcoms/demo/r1/push/return_value: 410 {"detail":{"message":"the try that this token was made for was retried or cleared; it can write no XCom any more","reason":"not_found"}}
    PUT store/ti/{ti}/k: 404 {"detail":{"message":"Task instance 00000000-0000-7000-8000-000000000001 not found","reason":"not_found"}}
    "#);
    assert_eq!(api.wakes(), 0);
    api.stop().await;
}

#[tokio::test]
async fn while_the_database_is_away_workers_are_asked_to_come_again() {
    let api = Api::start().await;
    api.pool.close().await;
    let mut statuses = Vec::new();
    for (method, path, body) in [
        ("PATCH", "task-instances/{ti}/run", start("h", 7, MORNING)),
        (
            "PUT",
            "task-instances/{ti}/heartbeat",
            r#"{"hostname":"h","pid":7}"#.to_owned(),
        ),
        (
            "PATCH",
            "task-instances/{ti}/state",
            json!({"state": "success", "end_date": END}).to_string(),
        ),
        ("POST", "xcoms/demo/r1/push/k", "1".to_owned()),
        ("GET", "variables/v1", String::new()),
    ] {
        statuses.push(api.ask_as(1, method, path, &body).await.line());
    }
    statuses.dedup();
    insta::assert_snapshot!(statuses.join("\n"), @r#"503 {"detail":{"message":"the database does not answer; try again","reason":"database_unavailable"}}"#);
    api.stop().await;
}

#[tokio::test]
async fn a_session_that_postgres_ends_is_passing_trouble() {
    let api = Api::start().await;
    let start = start("h", 7, MORNING);
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // Warm several sessions, then end all but the one that asks.
    join_all((0..4).map(|_| api.ask_as(1, "GET", "variables/v1", ""))).await;
    api.run_sql(others).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(
            api.ask_as(1, "PATCH", "task-instances/{ti}/run", &start)
                .await
                .status
                .as_u16(),
        );
    }
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(statuses.last(), Some(&200));
    api.stop().await;
}

#[tokio::test]
async fn a_triggered_run_is_made_once_however_often_its_answer_is_lost() {
    let api = Api::start().await;
    for number in [1, 2] {
        api.ask_as(
            number,
            "PATCH",
            "task-instances/{ti}/run",
            &start("h", 7, MORNING),
        )
        .await;
    }
    let body = r#"{"conf":{"x":1}}"#;
    let requests = [
        (1, body),
        (1, body),
        (1, r#"{"conf":{"x":2}}"#),
        (2, body),
        (1, body),
    ];
    let mut statuses = Vec::new();
    for (number, body) in requests {
        statuses.push(
            api.ask_as(number, "POST", "dag-runs/other/t1", body)
                .await
                .status
                .as_u16(),
        );
    }
    assert_eq!(statuses, [204, 204, 409, 409, 204]);
    assert_eq!(
        api.text("SELECT count(*) FROM dag_run WHERE run_id = 't1'")
            .await
            .unwrap(),
        "1"
    );
    assert_eq!(api.wakes(), 1);
    let at_once = join_all((0..6).map(|_| api.ask_as(2, "POST", "dag-runs/other/t2", body))).await;
    assert!(at_once.iter().all(|answer| answer.status == 204));
    assert_eq!(
        api.text("SELECT count(*) FROM task_instance WHERE run_id = 't2'")
            .await
            .unwrap(),
        "1"
    );
    api.stop().await;
}

//! What else a task's life asks for.

use serde_json::json;

use crate::support::{Api, ti};

const START: &str = r#"{"state":"running","hostname":"h","unixname":"u","pid":7,"start_date":"2024-01-02T05:00:00Z"}"#;

#[tokio::test]
async fn a_person_who_is_faster_than_the_worker_is_heard() {
    let api = Api::start().await;
    api.ask_as(10, "PATCH", "task-instances/{ti}/run", START)
        .await;
    let question = json!({"ti_id": ti(10), "options": ["yes", "no"], "subject": "Go on?"});
    api.ask_as(10, "POST", "hitlDetails/{ti}", &question.to_string())
        .await;
    api.run_sql(
        "UPDATE hitl_detail SET responded_at = '2024-01-02 05:00:30.5Z', chosen_options = '[\"yes\"]', \
                responded_by = '{\"id\": \"1\", \"name\": \"ada\"}'",
    )
    .await;
    let park = json!({"state": "awaiting_input", "timeout": "PT1H", "next_method": "execute_complete", "next_kwargs": {"k": 1}});
    let answer = api
        .ask_as(10, "PATCH", "task-instances/{ti}/state", &park.to_string())
        .await;
    assert_eq!(answer.status, 204);
    let row = api
        .text("SELECT concat_ws(' ', state, next_method, trigger_timeout, jsonb_pretty(next_kwargs)) FROM task_instance WHERE task_id = 'asks'")
        .await;
    insta::assert_snapshot!(row.unwrap(), @r#"
    scheduled execute_complete {
        "k": 1,
        "event": {
            "timedout": false,
            "params_input": {
            },
            "responded_at": {
                "__data__": {
                    "tz": {
                        "__data__": [
                            "UTC",
                            "pendulum.tz.timezone.Timezone",
                            1,
                            true
                        ],
                        "__version__": 1,
                        "__classname__": "builtins.tuple"
                    },
                    "timestamp": 1704171630.5
                },
                "__version__": 2,
                "__classname__": "datetime.datetime"
            },
            "chosen_options": [
                "yes"
            ],
            "responded_by_user": {
                "id": "1",
                "name": "ada"
            }
        }
    }
    "#);
    assert_eq!(api.wakes(), 1);
    api.stop().await;
}

#[tokio::test]
async fn a_question_stays_with_the_try_that_asked_it() {
    let api = Api::start().await;
    api.ask_as(10, "PATCH", "task-instances/{ti}/run", START)
        .await;
    let question = json!({"ti_id": ti(10), "options": ["yes"], "subject": "Go on?"});
    api.ask_as(10, "POST", "hitlDetails/{ti}", &question.to_string())
        .await;
    let retry = json!({"state": "up_for_retry", "end_date": "2024-01-02T05:01:00Z"});
    assert_eq!(
        api.ask_as(10, "PATCH", "task-instances/{ti}/state", &retry.to_string())
            .await
            .status,
        204
    );
    let old = api.text("SELECT subject FROM hitl_detail_history").await;
    assert_eq!(old.as_deref(), Some("Go on?"));
    let moved = api
        .text("SELECT h.ti_id = t.id FROM hitl_detail h, task_instance t WHERE t.task_id = 'asks'")
        .await;
    assert_eq!(moved.as_deref(), Some("true"));
    api.stop().await;
}

#[tokio::test]
async fn the_events_that_triggered_a_run_come_with_its_start() {
    let api = Api::start().await;
    api.run_sql(
        "INSERT INTO asset_event (id, asset_id, extra, source_task_id, source_dag_id, source_run_id, source_map_index, timestamp, partition_key) \
         VALUES (1, 1, '{\"rows\": 3.0}', 'push', 'demo', 'r0', -1, '2024-01-01 05:00Z', 'p'); \
         INSERT INTO asset_alias_asset_event VALUES (1, 1); \
         INSERT INTO dagrun_asset_event SELECT id, 1 FROM dag_run WHERE dag_id = 'demo' AND run_id = 'r1'",
    )
    .await;
    let token = api.tokens.workload(ti(1));
    let path = format!("task-instances/{}/run", ti(1));
    let mut lines = Vec::new();
    for version in ["2026-06-30", "2026-04-06"] {
        let answer = api
            .ask(
                "PATCH",
                &path,
                &token,
                &[("airflow-api-version", version)],
                START,
            )
            .await;
        let run = &answer.json()["dag_run"];
        let fields: Vec<&str> = run
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        lines.push(format!(
            "{version}: {}\n  {}",
            run["consumed_asset_events"],
            fields.join(" ")
        ));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    2026-06-30: [{"asset":{"extra":{},"name":"a","uri":"s3://bucket/a"},"extra":{"rows":3.0},"partition_key":"p","source_aliases":[{"name":"al"}],"source_dag_id":"demo","source_map_index":-1,"source_run_id":"r0","source_task_id":"push","timestamp":"2024-01-01T05:00:00Z"}]
      clear_number conf consumed_asset_events dag_id data_interval_end data_interval_start end_date logical_date note partition_date partition_key run_after run_id run_type start_date state team_name triggering_user_name
    2026-04-06: [{"asset":{"extra":{},"name":"a","uri":"s3://bucket/a"},"extra":{"rows":3.0},"source_aliases":[{"name":"al"}],"source_dag_id":"demo","source_map_index":-1,"source_run_id":"r0","source_task_id":"push","timestamp":"2024-01-01T05:00:00Z"}]
      clear_number conf consumed_asset_events dag_id data_interval_end data_interval_start end_date logical_date note partition_key run_after run_id run_type start_date state triggering_user_name
    "#);
    api.stop().await;
}

#[tokio::test]
async fn numbers_keep_their_digits() {
    let api = Api::start().await;
    let answer = api
        .ask_as(1, "PATCH", "task-instances/{ti}/run", START)
        .await;
    let text = String::from_utf8(answer.bytes).unwrap();
    assert!(
        text.contains("\"n\": 1.0") && text.contains("\"big\": 12345678901234567890123"),
        "{text}"
    );
    let defer = r#"{"state":"deferred","classpath":"c","trigger_kwargs":{"big":12345678901234567890123,"f":1.0},
                    "next_method":"m","next_kwargs":{"big":12345678901234567890123}}"#;
    assert_eq!(
        api.ask_as(1, "PATCH", "task-instances/{ti}/state", defer)
            .await
            .status,
        204
    );
    let kept = api.text("SELECT concat(kwargs, ' ', next_kwargs) FROM trigger, task_instance WHERE task_id = 'push' AND run_id = 'r1'");
    insta::assert_snapshot!(kept.await.unwrap(), @r#"{"big":12345678901234567890123,"f":1.0} {"big": 12345678901234567890123}"#);
    api.stop().await;
}

#[tokio::test]
async fn a_secret_that_no_key_opens_is_said_to_be_one() {
    let api = Api::start().await;
    api.run_sql("UPDATE variable SET val = 'gAAAAAnothing'; UPDATE connection SET password = 'gAAAAAnothing', is_encrypted = true").await;
    let lines = [
        api.ask_as(1, "GET", "variables/v1", "").await.line(),
        api.ask_as(1, "GET", "connections/c1", "").await.line(),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    409 {"detail":{"message":"variable 'v1' was encrypted with a Fernet key that this environment does not have\nhint: set [core] fernet_key to the key that it was stored with, or store it again","reason":"undecryptable"}}
    409 {"detail":{"message":"the password of connection 'c1' was encrypted with a Fernet key that this environment does not have\nhint: set [core] fernet_key to the key that it was stored with, or store it again","reason":"undecryptable"}}
    "#);
    api.stop().await;
}

#[tokio::test]
async fn rendered_fields_of_old_runs_go() {
    use execution_api::Limits;
    let api = Api::start_with(Limits {
        runs_with_rendered_fields: 1,
        ..Limits::default()
    })
    .await;
    api.ask_as(20, "PUT", "task-instances/{ti}/rtif", r#"{"a":1}"#)
        .await;
    api.ask_as(14, "PUT", "task-instances/{ti}/rtif", r#"{"a":1}"#)
        .await;
    api.ask_as(1, "PUT", "task-instances/{ti}/rtif", r#"{"a":1.0}"#)
        .await;
    let left = api.text("SELECT string_agg(run_id || '.' || task_id || ' ' || rendered_fields, ', ' ORDER BY task_id) FROM rendered_task_instance_fields").await;
    insta::assert_snapshot!(left.unwrap(), @r#"r1.g.one {"a":1}, r1.push {"a":1.0}"#);
    api.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded_and_bad_ones_named() {
    use execution_api::Limits;
    let api = Api::start_with(Limits {
        max_body_bytes: 1000,
        ..Limits::default()
    })
    .await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1000));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(400), "]".repeat(400));
    let mut lines = Vec::new();
    for body in [
        large.as_str(),
        &deep,
        "",
        "{",
        "[]",
        "\"x\"",
        "{\"a\":1,\"a\":2}",
    ] {
        let line = api
            .ask_as(1, "PUT", "task-instances/{ti}/rtif", body)
            .await
            .line();
        lines.push(line);
    }
    for body in [
        "",
        "[]",
        "{\"hostname\":\"h\",\"pid\":\"seven\"}",
        "{\"hostname\":null,\"pid\":99999999999}",
    ] {
        lines.push(
            api.ask_as(1, "PUT", "task-instances/{ti}/heartbeat", body)
                .await
                .line(),
        );
    }
    for state in ["scheduled", "running", "banana"] {
        let body = json!({"state": state}).to_string();
        lines.push(
            api.ask_as(1, "PATCH", "task-instances/{ti}/state", &body)
                .await
                .line(),
        );
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    413 {"detail":{"message":"the request body is larger than this server takes","reason":"too_large"}}
    201 {"message":"Rendered task instance fields successfully set"}
    422 {"detail":[{"input":null,"loc":["body"],"msg":"Field required","type":"missing"}]}
    422 {"detail":[{"ctx":{"error":"EOF while parsing an object at line 1 column 1"},"input":{},"loc":["body",1],"msg":"JSON decode error","type":"json_invalid"}]}
    422 {"detail":[{"input":[],"loc":["body"],"msg":"Input should be a valid dictionary","type":"dict_type"}]}
    422 {"detail":[{"input":"x","loc":["body"],"msg":"Input should be a valid dictionary","type":"dict_type"}]}
    201 {"message":"Rendered task instance fields successfully set"}
    422 {"detail":[{"input":null,"loc":["body"],"msg":"Field required","type":"missing"}]}
    422 {"detail":[{"input":[],"loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from","type":"model_attributes_type"}]}
    422 {"detail":[{"input":"seven","loc":["body","pid"],"msg":"Input should be a valid integer, unable to parse string as an integer","type":"int_parsing"}]}
    422 {"detail":[{"input":null,"loc":["body","hostname"],"msg":"Input should be a valid string","type":"string_type"},{"input":99999999999,"loc":["body","pid"],"msg":"Input should be less than or equal to 2147483647","type":"less_than_equal"}]}
    422 {"detail":[{"input":"scheduled","loc":["body","state"],"msg":"a worker can't put its task instance into this state","type":"enum"}]}
    422 {"detail":[{"input":"running","loc":["body","state"],"msg":"a worker can't put its task instance into this state","type":"enum"}]}
    422 {"detail":[{"input":"banana","loc":["body","state"],"msg":"Input should be one of 'removed', 'success', 'failed', 'up_for_retry', 'up_for_reschedule', 'upstream_failed', 'skipped', 'deferred', 'awaiting_input'","type":"enum"}]}
    "#);
    api.stop().await;
}

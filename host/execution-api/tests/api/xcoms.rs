//! XComs: what is kept where, how large they may be, and whose they are.

use execution_api::{Limits, XcomWrites};
use futures::stream;

use crate::support::{Api, ti};

const PUSH: &str = "xcoms/demo/r1/push/k";

#[tokio::test]
async fn a_large_value_is_kept_by_the_plugin_and_comes_back() {
    let api = Api::start().await;
    let large = format!("[{}1]", "\"some text\", ".repeat(1000));
    assert_eq!(api.ask_as(1, "POST", PUSH, &large).await.status, 201);
    let column = api.text("SELECT value FROM xcom").await.unwrap();
    insta::assert_snapshot!(column, @r#"{"__modalflow_xcom__": {"uri": "demo/r1/push/-1/k", "size": 13003}}"#);
    let got = api.ask_as(2, "GET", PUSH, "").await;
    assert_eq!(
        got.json()["value"],
        serde_json::from_str::<serde_json::Value>(&large).unwrap()
    );
    assert_eq!(
        api.ask_as(2, "GET", &format!("{PUSH}/item/0"), "")
            .await
            .bytes,
        large.as_bytes()
    );
    let list = api.ask_as(2, "GET", &format!("{PUSH}/slice"), "").await;
    assert_eq!(list.bytes, format!("[{large}]").as_bytes());

    // Overwritten with a small value, then with a large one again, then deleted: nothing stays behind.
    api.ask_as(1, "POST", PUSH, "1").await;
    assert_eq!(api.backend.places(), Vec::<String>::new());
    api.ask_as(1, "POST", PUSH, &large).await;
    assert_eq!(api.backend.places(), ["demo/r1/push/-1/k"]);
    api.ask_as(1, "POST", PUSH, &large).await;
    assert_eq!(api.backend.places(), ["demo/r1/push/-1/k"]);
    api.ask_as(1, "DELETE", PUSH, "").await;
    assert_eq!(api.backend.places(), Vec::<String>::new());
    api.stop().await;
}

#[tokio::test]
async fn a_worker_with_the_plugin_sends_and_gets_the_column() {
    let api = Api::start().await;
    let token = api.tokens.execution(ti(1));
    let stored = [("modalflow-xcom", "stored")];
    let column = r#"{"__modalflow_xcom__": {"size": 9, "uri": "xcom:demo"}}"#;
    let set = api.ask("POST", PUSH, &token, &stored, column).await;
    let mut lines = vec![set.line()];
    for path in [
        PUSH.to_owned(),
        format!("{PUSH}/item/0"),
        format!("{PUSH}/slice"),
    ] {
        lines.push(api.ask("GET", &path, &token, &stored, "").await.line());
    }
    lines.push(
        api.ask("POST", PUSH, &token, &[("modalflow-xcom", "other")], "1")
            .await
            .line(),
    );
    lines.push(api.ask("POST", PUSH, &token, &stored, "{").await.line());
    // Without the header the plugin is asked for what the column stands for; this one knows nothing of it.
    lines.push(api.ask("GET", PUSH, &token, &[], "").await.line());
    insta::assert_snapshot!(lines.join("\n"), @r#"
    201 {"message":"XCom successfully set"}
    200 {"key":"k","value":{"run_id":"r1","map_index":-1,"value":{"__modalflow_xcom__": {"uri": "xcom:demo", "size": 9}}}}
    200 {"run_id":"r1","map_index":-1,"value":{"__modalflow_xcom__": {"uri": "xcom:demo", "size": 9}}}
    200 [{"run_id":"r1","map_index":-1,"value":{"__modalflow_xcom__": {"uri": "xcom:demo", "size": 9}}}]
    400 {"detail":{"message":"the header modalflow-xcom can only be stored","reason":"invalid_header"}}
    422 {"detail":[{"ctx":{"error":"unexpected end at byte 1"},"input":{},"loc":["body",1],"msg":"JSON decode error","type":"json_invalid"}]}
    404 {"detail":{"message":"memory: not found: xcom:demo","reason":"not_found"}}
    "#);
    api.stop().await;
}

#[tokio::test]
async fn an_object_that_looks_like_a_reference_is_a_users_value() {
    let api = Api::start().await;
    let value = r#"{"__modalflow_xcom__":{"uri":"xcom:other/secret"}}"#;
    api.ask_as(1, "POST", PUSH, value).await;
    assert_eq!(
        api.ask_as(2, "GET", &format!("{PUSH}/item/0"), "")
            .await
            .bytes,
        value.as_bytes()
    );
    api.stop().await;
}

#[tokio::test]
async fn values_that_are_none_are_refused() {
    let api = Api::start_with(Limits {
        max_xcom_bytes: 1 << 20,
        ..Limits::default()
    })
    .await;
    let key_of = |length| format!("xcoms/demo/r1/push/{}", "k".repeat(length));
    let cases: Vec<(&str, String, Vec<u8>)> = vec![
        ("NaN", PUSH.into(), b"NaN".to_vec()),
        ("cut off", PUSH.into(), b"[1, 2".to_vec()),
        ("two values", PUSH.into(), b"1 2".to_vec()),
        ("not UTF-8", PUSH.into(), b"\"\xff\"".to_vec()),
        ("NUL in a text", PUSH.into(), b"\"a\\u0000b\"".to_vec()),
        ("a lone surrogate", PUSH.into(), b"\"\\ud800\"".to_vec()),
        (
            "deeper than a stack",
            PUSH.into(),
            format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)).into_bytes(),
        ),
        (
            "over the limit",
            PUSH.into(),
            format!("\"{}\"", "x".repeat(1 << 20)).into_bytes(),
        ),
        ("the longest key", key_of(512), b"1".to_vec()),
        ("too long a key", key_of(513), b"1".to_vec()),
        (
            "NUL in a key",
            "xcoms/demo/r1/push/a%00b".into(),
            b"1".to_vec(),
        ),
        (
            "no such task",
            "xcoms/demo/r1/nobody/k".into(),
            b"1".to_vec(),
        ),
        (
            "no such map index",
            format!("{PUSH}?map_index=7"),
            b"1".to_vec(),
        ),
        (
            "negative mapped length",
            format!("{PUSH}?mapped_length=-1"),
            b"1".to_vec(),
        ),
    ];
    let token = api.tokens.execution(ti(1));
    let mut lines = Vec::new();
    for (case, path, body) in cases {
        let line = api.ask("POST", &path, &token, &[], body).await.line();
        lines.push(format!(
            "{case}: {}",
            line.chars().take(170).collect::<String>()
        ));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    NaN: 422 {"detail":[{"ctx":{"error":"unexpected character at byte 0"},"input":{},"loc":["body",0],"msg":"JSON decode error","type":"json_invalid"}]}
    cut off: 422 {"detail":[{"ctx":{"error":"unexpected end at byte 5"},"input":{},"loc":["body",5],"msg":"JSON decode error","type":"json_invalid"}]}
    two values: 422 {"detail":[{"ctx":{"error":"unexpected character at byte 2"},"input":{},"loc":["body",2],"msg":"JSON decode error","type":"json_invalid"}]}
    not UTF-8: 422 {"detail":[{"ctx":{"error":"not UTF-8 at byte 1"},"input":{},"loc":["body",1],"msg":"JSON decode error","type":"json_invalid"}]}
    NUL in a text: 422 {"detail":[{"ctx":{"error":"a NUL character, which the database can't hold, at byte 7"},"input":{},"loc":["body",7],"msg":"JSON decode error","type":"json_invalid"}]}
    a lone surrogate: 422 {"detail":[{"ctx":{"error":"lone surrogate at byte 7"},"input":{},"loc":["body",7],"msg":"JSON decode error","type":"json_invalid"}]}
    deeper than a stack: 422 {"detail":[{"ctx":{"error":"nested too deeply at byte 127"},"input":{},"loc":["body",127],"msg":"JSON decode error","type":"json_invalid"}]}
    over the limit: 413 {"detail":{"message":"the XCom value is larger than 1048576 bytes, the limit of this environment\nhint: push a reference to where the data is, or raise xcom.max_bytes
    the longest key: 201 {"message":"XCom successfully set"}
    too long a key: 422 {"detail":{"message":"an XCom key has at most 512 characters and no NUL; this one has 513","reason":"invalid_key"}}
    NUL in a key: 422 {"detail":{"message":"an XCom key has at most 512 characters and no NUL; this one has 3","reason":"invalid_key"}}
    no such task: 404 {"detail":{"message":"Task instance of task 'nobody' with map_index=-1 not found in DAG run 'r1' of 'demo'","reason":"not_found"}}
    no such map index: 404 {"detail":{"message":"Task instance of task 'push' with map_index=7 not found in DAG run 'r1' of 'demo'","reason":"not_found"}}
    negative mapped length: 422 {"detail":{"message":"new row for relation \"task_map\" violates check constraint \"ck_task_map_task_map_length_not_negative\"","reason":"Value rejected by database"}
    "#);
    assert_eq!(api.text("SELECT count(*) FROM xcom").await.unwrap(), "1");
    api.stop().await;
}

#[tokio::test]
async fn ids_in_the_path_are_decoded_once_and_never_joined() {
    let api = Api::start().await;
    api.run_sql(
        "SET session_replication_role = replica; \
         UPDATE dag_run SET run_id = 'manual__2024-01-02T00:00:00+00:00' WHERE dag_id = 'demo' AND run_id = 'r1'; \
         UPDATE task_instance SET run_id = 'manual__2024-01-02T00:00:00+00:00' WHERE dag_id = 'demo' AND run_id = 'r1'; \
         SET session_replication_role = origin",
    )
    .await;
    let mut lines = Vec::new();
    for key in [
        "..",
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e",
        "a%5Cb",
        "a%0Ab",
        "a%20b",
        "a+b",
        "schlüssel",
    ] {
        let path = format!("xcoms/demo/manual__2024-01-02T00:00:00+00:00/push/{key}")
            .replace('ü', "%C3%BC");
        let set = api.ask_as(1, "POST", &path, "1").await.status;
        let got = api.ask_as(1, "GET", &path, "").await;
        lines.push(format!("{key}: {} {}", set.as_u16(), got.line()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    ..: 201 200 {"key":"..","value":1}
    ../../etc/passwd: 201 200 {"key":"../../etc/passwd","value":1}
    ..%2f..%2fetc%2fpasswd: 201 200 {"key":"../../etc/passwd","value":1}
    %252e%252e: 201 200 {"key":"%2e%2e","value":1}
    a%5Cb: 201 200 {"key":"a\\b","value":1}
    a%0Ab: 201 200 {"key":"a\nb","value":1}
    a%20b: 201 200 {"key":"a b","value":1}
    a+b: 201 200 {"key":"a+b","value":1}
    schlüssel: 201 200 {"key":"schlüssel","value":1}
    "#);
    api.stop().await;
}

#[tokio::test]
async fn a_task_writes_its_own_xcoms_only() {
    let api = Api::start().await;
    api.ask_as(2, "POST", "xcoms/demo/r1/pull/k", "1").await;
    let cases = [
        ("another task's", "xcoms/demo/r1/pull/k"),
        ("another run's", "xcoms/demo/r0/push/k"),
        ("another DAG's", "xcoms/other/o0/e/k"),
        ("another map index", "xcoms/demo/r1/square/k?map_index=1"),
    ];
    let mut lines = Vec::new();
    for (case, path) in cases {
        for method in ["POST", "DELETE", "GET"] {
            let answer = api
                .ask_as(1, method, path, if method == "POST" { "9" } else { "" })
                .await;
            lines.push(format!("{case}, {method}: {}", answer.line()));
        }
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    another task's, POST: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another task's, DELETE: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another task's, GET: 200 {"key":"k","value":1}
    another run's, POST: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another run's, DELETE: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another run's, GET: 404 {"detail":{"message":"XCom with key='k' map_index=-1 not found for task 'push' in DAG run 'r0' of 'demo'","reason":"not_found"}}
    another DAG's, POST: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another DAG's, DELETE: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another DAG's, GET: 404 {"detail":{"message":"XCom with key='k' map_index=-1 not found for task 'e' in DAG run 'o0' of 'other'","reason":"not_found"}}
    another map index, POST: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another map index, DELETE: 403 {"detail":{"message":"a task writes and deletes only its own XComs","reason":"access_denied"}}
    another map index, GET: 404 {"detail":{"message":"XCom with key='k' map_index=1 not found for task 'square' in DAG run 'r1' of 'demo'","reason":"not_found"}}
    "#);
    api.stop().await;

    let open = Api::start_with(Limits {
        xcom_writes: XcomWrites::Any,
        ..Limits::default()
    })
    .await;
    assert_eq!(
        open.ask_as(1, "POST", "xcoms/other/o0/e/k", "9")
            .await
            .status,
        201
    );
    open.stop().await;
}

#[tokio::test]
async fn twenty_megabytes_pass_in_pieces() {
    let api = Api::start().await;
    let token = api.tokens.execution(ti(1));
    let piece = "x".repeat(1 << 20);
    let mut pieces: Vec<Result<String, std::io::Error>> = vec![Ok("\"".to_owned())];
    pieces.extend((0..20).map(|_| Ok(piece.clone())));
    pieces.push(Ok("\"".to_owned()));
    let body = axum::body::Body::from_stream(stream::iter(pieces));
    assert_eq!(
        api.ask("POST", PUSH, &token, &[], body).await.line(),
        r#"201 {"message":"XCom successfully set"}"#
    );
    let got = api.ask("GET", PUSH, &token, &[], "").await;
    assert_eq!(
        got.bytes.len(),
        (20 << 20) + 2 + r#"{"key":"k","value":}"#.len()
    );
    api.stop().await;
}

//! Which tokens are taken, and what refused ones are told.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{Api, SECRET, ti};

fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Airflow's claims, changed by `change`; a null takes a claim away.
fn claims(change: Value) -> Value {
    let now = now();
    let mut claims = json!({
        "sub": ti(1), "scope": "execution", "jti": "j", "aud": "urn:airflow.apache.org:task",
        "nbf": now, "iat": now, "exp": now + 600,
    });
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn sign(claims: &Value, algorithm: Algorithm, key: &[u8]) -> String {
    jsonwebtoken::encode(
        &Header::new(algorithm),
        claims,
        &EncodingKey::from_secret(key),
    )
    .unwrap()
}

/// A token that says it needs no signature.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.",
        part(&json!({"alg": "none", "typ": "JWT"})),
        part(claims)
    )
}

#[tokio::test]
async fn only_sound_tokens_are_taken() {
    let api = Api::start().await;
    let good = |change| sign(&claims(change), Algorithm::HS512, SECRET);
    let now = now();
    let cases = [
        ("no token", String::new()),
        ("as Airflow makes it", good(json!({}))),
        ("as we make it", api.tokens.execution(ti(1))),
        ("no scope", good(json!({"scope": null}))),
        ("no nbf", good(json!({"nbf": null}))),
        ("no jti", good(json!({"jti": null}))),
        (
            "several audiences",
            good(json!({"aud": ["x", "urn:airflow.apache.org:task"]})),
        ),
        ("expired within the leeway", good(json!({"exp": now - 5}))),
        ("a task that does not exist", good(json!({"sub": ti(999)}))),
        (
            "expired",
            good(json!({"exp": now - 60, "iat": now - 600, "nbf": now - 600})),
        ),
        ("issued in the future", good(json!({"iat": now + 60}))),
        ("valid in the future", good(json!({"nbf": now + 60}))),
        ("no exp", good(json!({"exp": null}))),
        ("no iat", good(json!({"iat": null}))),
        ("no aud", good(json!({"aud": null}))),
        ("another audience", good(json!({"aud": "ui"}))),
        ("exp is a text", good(json!({"exp": "soon"}))),
        (
            "another key",
            sign(&claims(json!({})), Algorithm::HS512, b"another key"),
        ),
        ("HS256", sign(&claims(json!({})), Algorithm::HS256, SECRET)),
        ("alg none", unsigned(&claims(json!({})))),
        ("sub is no uuid", good(json!({"sub": "root"}))),
        ("no sub", good(json!({"sub": null}))),
        ("unknown scope", good(json!({"scope": "admin"}))),
        ("workload token", api.tokens.workload(ti(1))),
        ("garbage", "a.b.c".to_owned()),
    ];
    let mut lines = Vec::new();
    for (case, token) in cases {
        let answer = api.ask("GET", "variables/v1", &token, &[], "").await;
        let refreshed = if answer.headers.contains_key("refreshed-api-token") {
            " and a new token"
        } else {
            ""
        };
        lines.push(format!("{case}: {}{refreshed}", answer.line()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    no token: 401 {"detail":"Missing auth token"}
    as Airflow makes it: 200 {"key":"v1","value":"swordfish"}
    as we make it: 200 {"key":"v1","value":"swordfish"}
    no scope: 200 {"key":"v1","value":"swordfish"}
    no nbf: 200 {"key":"v1","value":"swordfish"}
    no jti: 200 {"key":"v1","value":"swordfish"}
    several audiences: 200 {"key":"v1","value":"swordfish"}
    expired within the leeway: 200 {"key":"v1","value":"swordfish"} and a new token
    a task that does not exist: 200 {"key":"v1","value":"swordfish"}
    expired: 403 {"detail":"Invalid auth token"}
    issued in the future: 403 {"detail":"Invalid auth token"}
    valid in the future: 403 {"detail":"Invalid auth token"}
    no exp: 403 {"detail":"Invalid auth token"}
    no iat: 403 {"detail":"Invalid auth token"}
    no aud: 403 {"detail":"Invalid auth token"}
    another audience: 403 {"detail":"Invalid auth token"}
    exp is a text: 403 {"detail":"Invalid auth token"}
    another key: 403 {"detail":"Invalid auth token"}
    HS256: 403 {"detail":"Invalid auth token"}
    alg none: 403 {"detail":"Invalid auth token"}
    sub is no uuid: 403 {"detail":"Invalid auth token"}
    no sub: 403 {"detail":"Invalid auth token"}
    unknown scope: 403 {"detail":"Invalid auth token: scope should be 'execution' or 'workload'"}
    workload token: 403 {"detail":"Token type 'workload' not allowed for this endpoint. Allowed types: execution"}
    garbage: 403 {"detail":"Invalid auth token"}
    "#);
    api.stop().await;
}

#[tokio::test]
async fn a_token_speaks_for_its_own_task_only() {
    let api = Api::start().await;
    let token = api.tokens.execution(ti(1));
    let own = ti(1).to_string();
    let mut lines = Vec::new();
    for id in [
        &ti(2).to_string(),
        &ti(999).to_string(),
        "x",
        "..%2f",
        &own.to_ascii_uppercase().replace('0', "%30"),
    ] {
        for (method, route) in [
            ("PATCH", "run"),
            ("PUT", "heartbeat"),
            ("PATCH", "state"),
            ("PUT", "rtif"),
        ] {
            let path = format!("task-instances/{id}/{route}");
            let answer = api.ask(method, &path, &token, &[], "{}").await;
            lines.push(answer.line());
        }
    }
    lines.sort();
    lines.dedup();
    // The last id is the own one, written differently: it is decoded, found equal, and the body is looked at.
    insta::assert_snapshot!(lines.join("\n"), @r#"
    201 {"message":"Rendered task instance fields successfully set"}
    403 {"detail":"Token subject does not match task instance ID"}
    422 {"detail":[{"input":null,"loc":["body","state"],"msg":"Field required","type":"missing"}]}
    422 {"detail":[{"input":{},"loc":["body","hostname"],"msg":"Field required","type":"missing"},{"input":{},"loc":["body","pid"],"msg":"Field required","type":"missing"}]}
    422 {"detail":[{"input":{},"loc":["body","state"],"msg":"Field required","type":"missing"},{"input":{},"loc":["body","hostname"],"msg":"Field required","type":"missing"},{"input":{},"loc":["body","unixname"],"msg":"Field required","type":"missing"},{"input":{},"loc":["body","pid"],"msg":"Field required","type":"missing"},{"input":{},"loc":["body","start_date"],"msg":"Field required","type":"missing"}]}
    "#);
    api.stop().await;
}

#[tokio::test]
async fn a_start_swaps_the_workload_token_for_one_that_does_everything_else() {
    let api = Api::start().await;
    let start = r#"{"state":"running","hostname":"h","unixname":"u","pid":7,"start_date":"2024-01-02T05:00:00Z"}"#;
    let workload = api.tokens.workload(ti(1));
    let path = format!("task-instances/{}", ti(1));
    let answer = api
        .ask("PATCH", &format!("{path}/run"), &workload, &[], start)
        .await;
    assert_eq!(answer.status, 200);
    let token = answer.headers["refreshed-api-token"]
        .to_str()
        .unwrap()
        .to_owned();
    let beat = r#"{"hostname":"h","pid":7}"#;
    assert_eq!(
        api.ask("PUT", &format!("{path}/heartbeat"), &token, &[], beat)
            .await
            .status,
        204
    );
    assert_eq!(
        api.ask("PUT", &format!("{path}/heartbeat"), &workload, &[], beat)
            .await
            .status,
        403
    );
    api.stop().await;
}

#[tokio::test]
async fn versions_and_correlation_ids_are_answered_in_headers() {
    let api = Api::start().await;
    let token = api.tokens.execution(ti(1));
    let mut lines = Vec::new();
    for version in [
        "2026-06-30",
        "2026-04-06",
        "2026-04-05",
        "2025-11-05",
        "yesterday",
    ] {
        let headers = [("airflow-api-version", version), ("correlation-id", "c-1")];
        let answer = api
            .ask("GET", "dag-runs/demo/r0/state", &token, &headers, "")
            .await;
        assert_eq!(answer.headers["airflow-api-version"], version);
        assert_eq!(answer.headers["correlation-id"], "c-1");
        lines.push(format!("{version}: {}", answer.status));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    2026-06-30: 200 OK
    2026-04-06: 200 OK
    2026-04-05: 404 Not Found
    2025-11-05: 404 Not Found
    yesterday: 422 Unprocessable Entity
    ");
    api.stop().await;
}

//! The same requests that `tests/record/record.py` sent to Airflow's own server, and the same answers; then the same
//! rows. What differs is in the two snapshots, and explained in `docs/reference/execution-api.md`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;

use crate::support::{Answer, Api, ti};

#[tokio::test]
async fn answers_and_rows_are_airflows() {
    let api = Api::start().await;
    let requests: Vec<Map<String, Value>> =
        serde_json::from_str(include_str!("../data/requests.json")).unwrap();
    let recorded: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("../data/answers.json")).unwrap();
    let mut different = Vec::new();
    for request in &requests {
        let name = request["name"].as_str().unwrap();
        let ours = found(&ask(&api, request).await);
        let theirs = &recorded[name];
        if without_times(&ours) != without_times(theirs) {
            different.push(format!(
                "{name}\n  airflow {}\n  ours    {}",
                short(theirs),
                short(&ours)
            ));
        }
    }
    insta::assert_snapshot!(different.join("\n"), @r#"
    success with a strange field
      airflow 422 {"detail":[{"ctx":{"expected":"'failed', 'skipped', 'removed' or 'upstream_failed'"},"input":"success","loc":["body","_terminal_","state"],"msg":"Input should be 'failed', 'skipped', 'removed' or 'ups
      ours    422 {"detail":[{"input":1,"loc":["body","success","x"],"msg":"Extra inputs are not permitted","type":"extra_forbidden"}]}
    success without an end
      airflow 422 {"detail":[{"ctx":{"expected":"'failed', 'skipped', 'removed' or 'upstream_failed'"},"input":"success","loc":["body","_terminal_","state"],"msg":"Input should be 'failed', 'skipped', 'removed' or 'ups
      ours    422 {"detail":[{"input":{"state":"success"},"loc":["body","success","end_date"],"msg":"Field required","type":"missing"}]}
    12 to be retried again
      airflow 404 {"detail":{"message":"Task Instance not found","reason":"not_found"}}
      ours    200 null
    5 defers without method
      airflow 422 {"detail":[{"ctx":{"expected":"'failed', 'skipped', 'removed' or 'upstream_failed'"},"input":"deferred","loc":["body","_terminal_","state"],"msg":"Input should be 'failed', 'skipped', 'removed' or 'up
      ours    422 {"detail":[{"input":{"classpath":"c","state":"deferred"},"loc":["body","deferred","next_method"],"msg":"Field required","type":"missing"}]}
    "#);

    let theirs: BTreeMap<String, Vec<Value>> =
        serde_json::from_str(include_str!("../data/effects.json")).unwrap();
    let mut different = Vec::new();
    for (table, ours) in effects(&api).await {
        let theirs = &theirs[&table];
        different.extend(
            theirs
                .iter()
                .filter(|row| !ours.contains(row))
                .map(|row| format!("{table} airflow {row}")),
        );
        different.extend(
            ours.iter()
                .filter(|row| !theirs.contains(row))
                .map(|row| format!("{table} ours    {row}")),
        );
    }
    insta::assert_snapshot!(different.join("\n"), @r#"log ours    {"dag_id":"demo","event":"running","extra":"{\"host_name\": \"h\", \"start_date\": \"2024-01-02T09:00:00+00:00\"}","logical_date":"2024-01-02 00:00:00+00","map_index":-1,"owner":"airflow","run_id":"r1","task_id":"defers","try_number":1}"#);
    api.stop().await;
}

async fn ask(api: &Api, request: &Map<String, Value>) -> Answer {
    if let Some(sql) = request.get("sql") {
        api.run_sql(sql.as_str().unwrap()).await;
    }
    let token = request.get("as").map_or_else(String::new, |number| {
        let id = ti(number.as_u64().unwrap());
        match request.get("scope") {
            Some(_) => api.tokens.workload(id),
            None => api.tokens.execution(id),
        }
    });
    let mut path = request["path"].as_str().unwrap().to_owned();
    while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
        let id = ti(path[from + 1..to].parse().unwrap());
        path.replace_range(from..=to, &id.to_string());
    }
    let own: Vec<(String, String)> = request
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            (
                name.to_ascii_lowercase(),
                value.as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let headers: Vec<(&str, &str)> = own
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let body = request
        .get("body")
        .map(Value::to_string)
        .unwrap_or_default();
    api.ask(
        request["method"].as_str().unwrap(),
        &path,
        &token,
        &headers,
        body,
    )
    .await
}

/// In the form of `record.py`.
fn found(answer: &Answer) -> Value {
    let mut found = json!({"status": answer.status.as_u16(), "body": answer.json()});
    if let Some(range) = answer.headers.get("content-range") {
        found["content-range"] = json!(range.to_str().unwrap());
    }
    if answer.headers.contains_key("refreshed-api-token") {
        found["refreshed"] = json!(true);
    }
    if !answer.bytes.is_empty() {
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    found
}

/// Dates of the day on which the requests were sent are all the same.
fn without_times(value: &Value) -> Value {
    match value {
        Value::String(text)
            if text.len() >= 20 && text.starts_with("20") && &text[..4] > "2025" =>
        {
            json!("now")
        }
        Value::Array(list) => list.iter().map(without_times).collect(),
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| (name.clone(), without_times(value)))
            .collect(),
        value => value.clone(),
    }
}

fn short(found: &Value) -> String {
    let body = found["body"].to_string();
    let cut: String = body.chars().take(200).collect();
    format!("{} {cut}", found["status"])
}

/// What the statements of `effects.sql` find, by table.
async fn effects(api: &Api) -> Vec<(String, Vec<Value>)> {
    let mut tables = Vec::new();
    for statement in include_str!("../record/effects.sql").split(';') {
        let Some((_, from)) = statement.split_once("FROM ") else {
            continue;
        };
        let table = from.split_whitespace().next().unwrap().to_owned();
        let query = format!("SELECT coalesce(json_agg(r), '[]') FROM ({statement}) r");
        let mut db = api.pool.acquire().await.unwrap();
        sqlx::query("SET timezone = 'UTC'")
            .execute(&mut *db)
            .await
            .unwrap();
        let rows: Value = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut *db)
            .await
            .unwrap();
        tables.push((table, rows.as_array().unwrap().clone()));
    }
    tables
}

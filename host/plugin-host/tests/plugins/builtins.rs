//! What is shipped is held to what strangers are held to.

use plugin_host::conformance;
use serde_json::json;

use crate::House;

fn report(checks: &[conformance::Check]) -> String {
    let lines: Vec<String> = checks.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[tokio::test]
async fn volume_xcom_conforms() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let checks = conformance::xcom_backend(&*backend).await;
    insta::assert_snapshot!(report(&checks), @"
    ok   every JSON value comes back as it was
    ok   values of every size come back
    ok   no two keys share a value
    ok   mapped instances do not share values
    ok   a value can be replaced
    ok   a reference opens no other task's value
    ok   purging removes what is in its scope and nothing else
    ok   what is not there can be purged
    ok   nothing is left
    ");
    assert_eq!(house.files(), "");
}

#[tokio::test]
async fn volume_xcom_conforms_with_everything_on_the_volume() {
    let house = House::new();
    let plugin = house
        .load("volume-xcom", json!({"inline_bytes": 0}))
        .await
        .unwrap();
    let checks = conformance::xcom_backend(&*plugin.xcom_backend().unwrap()).await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.failure.is_some())
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn file_task_handler_conforms() {
    let house = House::new();
    let handler = house.file_task_handler().await;
    let checks = conformance::log_handler(&*handler).await;
    insta::assert_snapshot!(report(&checks), @"
    ok   a log that is not there is `not found`
    ok   lines can be read while the task runs
    ok   a batch that is sent twice is there once
    ok   a gap or other bytes are a conflict that changes nothing
    ok   pages of any size make the same log
    ok   raw text and garbage are shown as text
    ok   a line without an end is shown once the task ended
    ok   tries, mapped instances and strange ids have logs of their own
    ok   purging removes a run's logs and nothing else
    ");
    assert_eq!(house.files(), "");
}

#[tokio::test]
async fn dag_rules_conform() {
    let house = House::new();
    let validator = house
        .load("dag-rules", json!({}))
        .await
        .unwrap()
        .dag_validator()
        .unwrap();
    let checks = conformance::dag_validator(&*validator).await;
    insta::assert_snapshot!(report(&checks), @"
    ok   rules have codes of their own and say what they are about
    ok   findings name rules that are declared
    ok   the same Dag gets the same findings
    ok   a Dag of no sensible shape is judged, not crashed on
    ok   5,000 tasks are judged in time
    ");
}

#[tokio::test]
async fn a_plugin_that_cheats_does_not_conform() {
    let house = House::new();
    let evil = plugin_host::Source::File(crate::prebuilt("evil"));
    let plugin = house
        .host
        .load(evil, json!({"mode": "clock"}), house.grants())
        .await
        .unwrap();
    let checks = conformance::xcom_backend(&*plugin.xcom_backend().unwrap()).await;
    assert!(checks[0].failure.is_some() && checks[1].failure.is_some());
}

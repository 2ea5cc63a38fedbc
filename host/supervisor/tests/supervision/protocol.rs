//! What the Rust side believes of Airflow's private protocol, held against the installed SDK.

use std::process::Command;

use crate::support;

fn ask(program: &str) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(support::python())
        .args(["-c", program])
        .env("PYTHONPATH", support::python_files())
        .env("AIRFLOW_HOME", home.path())
        .output()
        .unwrap();
    let text = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn the_installed_sdk_is_the_one_that_the_protocol_was_read_from() {
    let (passed, said) =
        ask("import json, task_protocol; print(json.dumps(task_protocol.check(), indent=1))");
    assert!(passed, "{said}");
    insta::assert_snapshot!(said.lines().take(5).collect::<Vec<_>>().join("\n"), @r#"
    {
     "sdk": "1.3.2",
     "schema": "2026-06-16",
     "execution_api": "2026-06-30",
     "to_supervisor": [
    "#);
    let known = include_str!("../../src/messages.rs");
    let unknown: Vec<_> = said
        .lines()
        .skip(5)
        .map(|line| line.trim().trim_matches([',', '"']))
        .filter(|name| !name.is_empty() && *name != "]" && *name != "}")
        .filter(|name| {
            !["(", " {"]
                .iter()
                .any(|open| known.contains(&format!("    {name}{open}")))
        })
        .collect();
    assert!(
        unknown.is_empty(),
        "messages that the supervisor does not know: {unknown:?}"
    );
}

#[test]
fn another_sdk_is_refused_with_a_hint() {
    let (passed, said) =
        ask("import task_protocol; task_protocol.PINNED_SDK = '1.3.3'; task_protocol.check()");
    assert!(!passed);
    assert!(
        said.contains("apache-airflow-task-sdk is 1.3.2, modalflow was written for 1.3.3"),
        "{said}"
    );
    assert!(
        said.contains("hint: install apache-airflow-task-sdk==1.3.3"),
        "{said}"
    );
}

#[test]
fn a_private_name_that_is_gone_is_named() {
    let (passed, said) = ask(
        "import task_protocol\nfrom airflow.sdk.execution_time import supervisor\ndel supervisor._fork_main\ntask_protocol.check()",
    );
    assert!(!passed);
    assert!(
        said.contains("airflow.sdk.execution_time.supervisor._fork_main is gone"),
        "{said}"
    );
}

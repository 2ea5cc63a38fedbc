//! `executor_config`: what it asks for is there, what can't be had fails its task alone, what makes no sense is
//! refused with its file.

use support::TestHost;

#[test]
fn a_task_gets_what_it_asks_for() {
    let host = TestHost::new();
    host.upload(&["executor_config.py"]);
    let _serve = host.serve();
    let run = host.trigger("asks", &[]);
    assert_eq!(host.wait("asks", &run), "success");
    assert_eq!(host.xcom("asks", &run, "level"), "debug");
    assert_eq!(host.xcom("asks", &run, "plain"), "none");
}

#[test]
fn what_can_not_be_had_fails_its_task_and_says_why() {
    let host = TestHost::new();
    host.upload(&["executor_config.py"]);
    let _serve = host.serve();
    let run = host.trigger("asks_too_much", &[]);
    assert_eq!(host.wait("asks_too_much", &run), "success");
    insta::assert_snapshot!(host.tasks("asks_too_much", &run), @"
    after success 1
    overtime failed 1
    secretive failed 1
    ");
    let reasons: Vec<(String, String)> = host
        .block(
            sqlx::query_as(
                "SELECT task_id, extra FROM log WHERE dag_id = 'asks_too_much' AND event = 'failed' ORDER BY 1",
            )
            .fetch_all(host.pool()),
        )
        .unwrap();
    insta::assert_debug_snapshot!(reasons, @r#"
    [
        (
            "overtime",
            "the call ran longer than executor.task_timeout, or the timeout in its executor_config",
        ),
        (
            "secretive",
            "it can't be started: get what executor_config asks for: no secret 'nobody-made-this': Secret 'nobody-made-this' not found in environment 'main'\nhint: `modal secret list` shows the secrets, `modal secret create` makes one",
        ),
    ]
    "#);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_file() {
    let host = TestHost::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.py");
    std::fs::write(
        &file,
        "from airflow.sdk import DAG, task\n\n\n@task(executor_config={\"memroy\": 512})\ndef greedy():\n    pass\n\n\nwith DAG(\"wrong\"):\n    greedy()\n",
    )
    .unwrap();
    let refused = host.run(&["dags", "create", "--file", file.to_str().unwrap()]);
    let error = refused
        .stderr
        .find("error:")
        .map(|at| &refused.stderr[at..]);
    insta::assert_snapshot!(error.unwrap_or_default(), @r#"
    error: upload the DAG files: nothing was changed, because
    wrong.py: the task greedy of the DAG wrong: executor_config: unknown key "memroy"
    hint: did you mean memory?
    "#);
}

//! Stored DAGs that can't be used: each is told where Airflow's users look, and every other DAG goes on.

use support::TestHost;

/// What each DAG's stored form becomes.
const SPOILT: [(&str, &str); 6] = [
    ("version", "jsonb_set(data, '{__version}', '99')"),
    (
        "rule",
        "jsonb_set(data, '{dag,tasks,1,__var,trigger_rule}', '\"some_success\"')",
    ),
    (
        "cycle",
        "jsonb_set(data, '{dag,tasks,1,__var,downstream_task_ids}', '[\"first\"]')",
    ),
    (
        "dangling",
        "jsonb_set(data, '{dag,tasks,1,__var,downstream_task_ids}', '[\"nobody\"]')",
    ),
    ("nothing", "'{}'"),
    ("due", "jsonb_set(data, '{__version}', '1')"),
];

fn lines(host: &TestHost, query: &'static str) -> String {
    let rows: Vec<String> = host
        .block(sqlx::query_scalar(query).fetch_all(host.pool()))
        .unwrap();
    rows.join("\n")
}

#[test]
fn a_stored_dag_that_cannot_be_used_is_told_and_left_out() {
    let host = TestHost::new();
    host.upload(&["spoilt.py"]);
    for dag_id in ["version", "rule", "cycle", "dangling", "nothing", "sound"] {
        let _ = host.trigger(dag_id, &["--run-id", "one"]);
    }
    for (dag_id, form) in SPOILT {
        let spoil = format!("UPDATE serialized_dag SET data = {form} WHERE dag_id = '{dag_id}'");
        host.block(sqlx::query(sqlx::AssertSqlSafe(spoil)).execute(host.pool()))
            .unwrap();
    }
    // A second tick repeats no error.
    for _ in 0..2 {
        let _ = host.run(&["tick"]).ok();
    }
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT filename || E'\\n' || stacktrace FROM import_error ORDER BY stacktrace"
        ),
        @r#"
    spoilt.py
    read the serialized DAG cycle: its dependencies form a cycle through task "first"
    hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`

    spoilt.py
    read the serialized DAG dangling: "last" refers to task "nobody", which the DAG does not have
    hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`

    spoilt.py
    read the serialized DAG due: its format version is 1, this host reads version 3
    hint: parse the DAG file again with Airflow 3.3 (`dags update`)
    hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`

    spoilt.py
    read the serialized DAG nothing: its format version is absent, this host reads version 3
    hint: parse the DAG file again with Airflow 3.3 (`dags update`)
    hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`

    spoilt.py
    read the serialized DAG rule: task "last" has the unknown trigger rule "some_success"
    hint: the rules of Airflow 3.3 are all_success, all_failed, all_done, all_done_min_one_success, all_done_setup_success, one_success, one_failed, one_done, none_failed, none_failed_min_one_success, none_skipped, all_skipped and always
    hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`

    spoilt.py
    read the serialized DAG version: its format version is 99, this host reads version 3
    hint: parse the DAG file again with Airflow 3.3 (`dags update`)
    hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`
    "#
    );
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT concat_ws(' ', dag_id, run_id, state) FROM dag_run ORDER BY dag_id"
        ),
        @"
    cycle one running
    dangling one running
    nothing one running
    rule one running
    sound one success
    version one running
    "
    );
    let refused = host.run(&["dags", "trigger", "--dag-id", "cycle"]);
    insta::with_settings!({filters => vec![(r"t-[0-9a-f]{12}", "t-…")]}, {
        insta::assert_snapshot!(refused, @r#"
        exit code: 1
        ----- stdout -----
        ----- stderr -----
        error: DAG "cycle" can't run: its file is gone or could not be imported
        hint: modalflow-host dags list --env t-… shows why
        "#);
    });
}

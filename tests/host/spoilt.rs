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
        let _ = host.run(&["tick", "--wait"]).ok();
    }
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT filename || E'\\n' || stacktrace FROM import_error ORDER BY stacktrace"
        ),
        @""
    );
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT concat_ws(' ', dag_id, run_id, state) FROM dag_run ORDER BY dag_id"
        ),
        @""
    );
    let refused = host.run(&["dags", "trigger", "--dag-id", "cycle"]);
    insta::assert_snapshot!(refused, @"");
}

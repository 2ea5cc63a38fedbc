//! Runs that assets trigger: all of them, any, through an alias or a reference, beside a time schedule.

use support::TestHost;

/// Runs of all DAGs that consume (by an alias an event is seen twice, under the asset and under the alias), with what they saw, in the order of their making.
fn consumed(host: &TestHost) -> String {
    let rows: Vec<(String, String, String, i64)> = host
        .block(
            sqlx::query_as(
                "SELECT r.dag_id, r.run_id, r.state, (SELECT count(*) FROM dagrun_asset_event e WHERE e.dag_run_id = r.id) \
                   FROM dag_run r WHERE r.run_type = 'asset_triggered' ORDER BY r.dag_id, r.run_after",
            )
            .fetch_all(host.pool()),
        )
        .unwrap();
    let lines: Vec<String> = rows
        .iter()
        .map(|(dag_id, run_id, _, events)| {
            let state = host.wait(dag_id, run_id);
            let seen = host.xcom(dag_id, run_id, "see");
            format!("{dag_id}: {state}, {events} events, saw {seen}")
        })
        .collect();
    lines.join("\n")
}

fn produce(host: &TestHost, dag_id: &str) {
    let run = host.trigger(dag_id, &["--wait"]);
    assert_eq!(
        host.wait(dag_id, &run),
        "success",
        "{}",
        host.tasks(dag_id, &run)
    );
}

#[test]
fn assets_trigger_runs() {
    let host = TestHost::new();
    host.upload(&["assets.py"]);
    let serve = host.serve();
    produce(&host, "produce_orders");
    insta::assert_snapshot!(consumed(&host), @r#"
    by_reference: success, 0 events, saw []
    either: success, 1 events, saw ["orders {'rows': 7}"]
    "#);
    produce(&host, "produce_customers");
    produce(&host, "produce_report");
    insta::assert_snapshot!(consumed(&host), @r#"
    asset_or_time: success, 1 events, saw ["customers {}"]
    both: success, 2 events, saw ["customers {}","orders {'rows': 7}"]
    by_alias: success, 1 events, saw ["report_1 {'pages': 3}","report_1 {'pages': 3}"]
    by_reference: success, 0 events, saw []
    either: success, 1 events, saw ["orders {'rows': 7}"]
    either: success, 1 events, saw ["customers {}"]
    "#);
    let queue: Vec<(String, String)> = host
        .block(
            sqlx::query_as(
                "SELECT q.target_dag_id, a.name FROM asset_dag_run_queue q JOIN asset a ON a.id = q.asset_id",
            )
            .fetch_all(host.pool()),
        )
        .unwrap();
    assert_eq!(queue, []);
    drop(serve);
}

/// As in Airflow: what comes while a consumer is paused is not for it.
#[test]
fn events_do_not_wait_for_a_paused_dag() {
    let host = TestHost::new();
    host.upload(&["assets.py"]);
    let _ = host
        .run(&["dags", "pause", "--dag-id", "by_reference"])
        .ok();
    produce(&host, "produce_orders");
    let _ = host
        .run(&["dags", "unpause", "--dag-id", "by_reference"])
        .ok();
    let _ = host.run(&["tick"]).ok();
    insta::assert_snapshot!(consumed(&host), @r#"either: success, 1 events, saw ["orders {'rows': 7}"]"#);
}

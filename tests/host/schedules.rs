//! Scheduled runs: catchup makes all that were missed, in order; without it only the latest comes.

use support::TestHost;

fn runs(host: &TestHost, dag: &str) -> Vec<(String, String, String)> {
    host.block(
        sqlx::query_as(
            "SELECT to_char(logical_date AT TIME ZONE 'Europe/Berlin', 'HH24:MI'), run_type, state FROM dag_run \
              WHERE dag_id = $1 ORDER BY logical_date",
        )
        .bind(dag)
        .fetch_all(host.pool()),
    )
    .unwrap()
}

#[test]
fn catchup_makes_missed_runs() {
    let host = TestHost::new();
    host.upload(&["scheduled.py"]);
    // Without serve: one tick does all that is due, and exits.
    let said = host.run(&["tick"]).ok();
    let daily = runs(&host, "daily_catchup");
    assert!(
        (3..=4).contains(&daily.len()),
        "{daily:?}, tick said {said}"
    );
    for (time, run_type, state) in daily {
        assert_eq!(
            (time.as_str(), run_type.as_str(), state.as_str()),
            ("02:30", "scheduled", "success")
        );
    }
    let latest = runs(&host, "hourly_latest");
    assert_eq!(latest.len(), 1, "{latest:?}");
    // Nothing more is due: the next tick changes nothing.
    insta::assert_snapshot!(host.run(&["tick"]).ok(), @"nothing was due");
}

#[test]
fn a_paused_dag_starts_nothing() {
    let host = TestHost::new();
    host.upload(&["scheduled.py"]);
    let _ = host
        .run(&["dags", "pause", "--dag-id", "daily_catchup"])
        .ok();
    let _ = host.run(&["tick"]).ok();
    assert_eq!(runs(&host, "daily_catchup"), []);
}

//! Runs of partitions: keys of events are gathered until a DAG has all that it waits for.

use support::TestHost;

fn produce(host: &TestHost, dag_id: &str, key: &str) {
    let run = host.trigger(dag_id, &["--partition-key", key, "--wait"]);
    assert_eq!(
        host.wait(dag_id, &run),
        "success",
        "{}",
        host.tasks(dag_id, &run)
    );
}

/// Partitions of all DAGs: the keys they received, and what their runs saw.
fn partitions(host: &TestHost) -> String {
    let rows: Vec<(String, String, Vec<String>, Option<String>)> = host
        .block(
            sqlx::query_as(
                "SELECT p.target_dag_id, p.partition_key, \
                        ARRAY(SELECT l.source_partition_key FROM partitioned_asset_key_log l \
                               WHERE l.asset_partition_dag_run_id = p.id ORDER BY 1)::text[], r.run_id \
                   FROM asset_partition_dag_run p LEFT JOIN dag_run r ON r.id = p.created_dag_run_id \
                  ORDER BY p.target_dag_id, p.partition_key, p.id",
            )
            .fetch_all(host.pool()),
        )
        .unwrap();
    let lines: Vec<String> = rows
        .iter()
        .map(|(dag_id, key, received, run_id)| {
            let end = match run_id {
                None => "waits".to_owned(),
                Some(run_id) => {
                    let state = host.wait(dag_id, run_id);
                    format!("{state}, saw {}", host.xcom(dag_id, run_id, "see"))
                }
            };
            format!("{dag_id} {key} of {}: {end}", received.join(" "))
        })
        .collect();
    lines.join("\n")
}

#[test]
fn a_partition_gets_its_run_when_it_is_complete() {
    let host = TestHost::new();
    host.upload(&["partitions.py"]);
    let serve = host.serve();
    produce(&host, "hour", "2026-01-05T03:00:00");
    produce(&host, "hour", "2026-01-06T00:00:00");
    insta::assert_snapshot!(partitions(&host), @r"
    day 2026-01-05 of 2026-01-05T03:00:00: waits
    day 2026-01-06 of 2026-01-06T00:00:00: waits
    ");
    produce(&host, "hour", "2026-01-05T04:00:00");
    produce(&host, "hour", "2026-01-05T05:00:00");
    insta::assert_snapshot!(partitions(&host), @r#"
    day 2026-01-05 of 2026-01-05T03:00:00 2026-01-05T04:00:00: success, saw ["2026-01-05","2026-01-05 00:00:00+00:00",["2026-01-05T03:00:00","2026-01-05T04:00:00"]]
    day 2026-01-05 of 2026-01-05T05:00:00: waits
    day 2026-01-06 of 2026-01-06T00:00:00: waits
    "#);

    // Through another mapper what was queued is nothing: half a day may be a whole one, or no part of any.
    let text = std::fs::read_to_string(host.files.join("partitions.py")).unwrap();
    let changed = tempfile::tempdir().unwrap();
    let file = changed.path().join("partitions.py");
    std::fs::write(&file, text.replace("MinimumCount(2)", "MinimumCount(1)")).unwrap();
    let _ = host
        .run(&["dags", "update", "--file", file.to_str().unwrap()])
        .ok();
    produce(&host, "hour", "2026-01-07T00:00:00");
    insta::assert_snapshot!(partitions(&host), @r#"
    day 2026-01-05 of 2026-01-05T03:00:00 2026-01-05T04:00:00: success, saw ["2026-01-05","2026-01-05 00:00:00+00:00",["2026-01-05T03:00:00","2026-01-05T04:00:00"]]
    day 2026-01-07 of 2026-01-07T00:00:00: success, saw ["2026-01-07","2026-01-07 00:00:00+00:00",["2026-01-07T00:00:00"]]
    "#);
    drop(serve);
}

#[test]
fn events_that_come_at_once_meet_in_one_partition() {
    let host = TestHost::new();
    host.upload(&["partitions.py"]);
    let _serve = host.serve();
    let keys: Vec<String> = (0..8).map(|number| format!("key {number}")).collect();
    let runs: Vec<String> = keys
        .iter()
        .map(|key| host.trigger("sides", &["--partition-key", key]))
        .collect();
    for run in &runs {
        assert_eq!(host.wait("sides", run), "success");
    }
    let seen = partitions(&host);
    let wanted: Vec<String> = keys
        .iter()
        .map(|key| {
            format!(r#"both_sides {key} of {key} {key}: success, saw ["{key}","None",["{key}","{key}"]]"#)
        })
        .collect();
    assert_eq!(seen, wanted.join("\n"));
}

#[test]
fn a_key_must_be_one_of_the_dag() {
    let host = TestHost::new();
    host.upload(&["partitions.py"]);
    let said = |dag_id: &str, key: &str| {
        let ran = host.run(&[
            "dags",
            "trigger",
            "--dag-id",
            dag_id,
            "--partition-key",
            key,
        ]);
        ran.stderr.lines().next().unwrap_or_default().to_owned()
    };
    let lines = [
        said("plain", "a"),
        said("hour", " "),
        said("day", "yesterday"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    error: Dag 'plain' is not a partitioned Dag and does not accept a partition_key.
    error: create a run of DAG "hour": partition_key must not be empty or whitespace-only.
    error: create a run of DAG "day": Partition key 'yesterday' is invalid for this timetable's mappers: time data 'yesterday' does not match format '%Y-%m-%d'
    "#);
}

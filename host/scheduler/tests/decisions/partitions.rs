//! Runs of partitions: on a schedule, by hand, and when their events have come.

use chrono::{DateTime, TimeDelta, Utc};
use model::{DagRunTriggeredBy, DagRunType, SerializedDag};
use scheduler::partitions::{
    Mapped, PartitionEvent, PartitionReadiness, map_event, partition_readiness,
};
use scheduler::plan::{DueDecision, NewDagRun};
use scheduler::runs::{ManualRun, due, manual, next_after, partition_triggered};
use scheduler::snapshot::{DueDag, OpenPartition, QueuedAsset};
use serde_json::{Value, json};

fn dag(class: &str, var: &Value) -> SerializedDag {
    let start = now() - TimeDelta::days(2);
    SerializedDag::parse(&json!({"__version": 3, "dag": {
        "dag_id": "d", "timezone": "UTC", "fileloc": "/d.py", "catchup": true,
        "start_date": start.timestamp(), "tasks": [], "task_group": {"_group_id": null, "children": {}},
        "timetable": {"__type": format!("airflow.timetables.{class}"), "__var": var},
    }}))
    .unwrap()
}

fn now() -> DateTime<Utc> {
    "2026-03-29T12:00:00Z".parse().unwrap()
}

fn told(run: &NewDagRun) -> String {
    format!(
        "{} of {} {}, after {}, logical date {:?}, interval {:?}",
        run.run_id,
        run.partition_key.as_deref().unwrap_or("nothing"),
        run.partition_date
            .map_or("-".to_owned(), |date| date.to_rfc3339()),
        run.run_after.to_rfc3339(),
        run.logical_date,
        run.data_interval_start,
    )
}

#[test]
fn a_schedule_of_partitions_makes_runs_with_keys_and_without_dates() {
    // The clocks of Zurich are put on in the second night.
    let dag = dag(
        "trigger.CronPartitionTimetable",
        &json!({"expression": "30 0 * * *", "timezone": "Europe/Zurich", "run_immediately": false, "run_offset": -1,
                "key_format": "%Y-%m-%dT%H:%M"}),
    );
    let mut next = next_after(&dag, None, now()).unwrap();
    let mut lines = Vec::new();
    while next.create_after.is_some_and(|at| at <= now()) {
        let due_dag = DueDag {
            dag_id: "d".to_owned(),
            next: next.clone(),
            max_active_runs: 16,
            active_runs: 0,
            existing: None,
        };
        let DueDecision::Create { run, next: after } =
            due(&dag, &due_dag, "abcdefgh", now()).unwrap()
        else {
            panic!("it is due");
        };
        lines.push(told(&run));
        next = after;
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    scheduled__2026-03-27T23:30:00+00:00__2026-03-27T00:30__abcdefgh of 2026-03-27T00:30 2026-03-26T23:30:00+00:00, after 2026-03-27T23:30:00+00:00, logical date None, interval None
    scheduled__2026-03-28T23:30:00+00:00__2026-03-28T00:30__abcdefgh of 2026-03-28T00:30 2026-03-27T23:30:00+00:00, after 2026-03-28T23:30:00+00:00, logical date None, interval None
    "#);
}

fn by_hand(dag: &SerializedDag, key: &str) -> String {
    let wanted = ManualRun {
        run_id: None,
        logical_date: None,
        data_interval: None,
        run_after: None,
        conf: Value::Null,
        run_type: DagRunType::Manual,
        triggered_by: DagRunTriggeredBy::Cli,
        triggering_user_name: None,
        partition_key: Some(key.to_owned()),
    };
    match manual(dag, wanted, "abcdefgh", now()) {
        Ok(run) => told(&run),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_key_given_by_hand_is_checked_and_dated() {
    let cron = dag(
        "trigger.CronPartitionTimetable",
        &json!({"expression": "@daily", "timezone": "Asia/Tokyo", "run_offset": 0, "key_format": "%Y-%m-%d"}),
    );
    let runtime = dag("simple.PartitionedAtRuntime", &json!({}));
    let lines = [
        by_hand(&cron, "2026-03-01"),
        by_hand(&cron, "March"),
        by_hand(&runtime, "March"),
        by_hand(&runtime, " "),
        by_hand(&runtime, &"x".repeat(251)),
        by_hand(&rolled_up(), "2026-03-01"),
        by_hand(&rolled_up(), "March"),
        by_hand(&dag("simple.NullTimetable", &json!({})), "March"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    manual__2026-03-29T12:00:00+00:00__abcdefgh of 2026-03-01 2026-02-28T15:00:00+00:00, after 2026-03-29T12:00:00+00:00, logical date None, interval None
    create a run of DAG "d": Partition key 'March' does not match the timetable's key_format '%Y-%m-%d': time data 'March' does not match format '%Y-%m-%d'
    manual__2026-03-29T12:00:00+00:00 of March -, after 2026-03-29T12:00:00+00:00, logical date None, interval None
    create a run of DAG "d": partition_key must not be empty or whitespace-only.
    create a run of DAG "d": partition_key must be at most 250 characters; got 251.
    manual__2026-03-29T12:00:00+00:00 of 2026-03-01 2026-02-23T00:00:00+00:00, after 2026-03-29T12:00:00+00:00, logical date None, interval None
    create a run of DAG "d": Partition key 'March' is invalid for this timetable's mappers: StartOfWeekMapper.decode_downstream could not parse 'March' with output_format '%Y-%m-%d'; output_format must include the %Y, %m and %d directives.
    Dag 'd' is not a partitioned Dag and does not accept a partition_key.
    "#);
}

/// Two of a week's days of one asset, and anything of the week of another.
fn rolled_up() -> SerializedDag {
    let asset = |name: &str| json!({"__type": "asset", "name": name, "uri": name, "group": "asset", "extra": {}});
    let mapper = |class: &str, var: Value| json!({"__type": format!("airflow.partition_mappers.{class}"), "__var": var});
    let week = |input: &str| {
        let formats =
            json!({"timezone": "UTC", "input_format": input, "output_format": "%Y-%m-%d"});
        mapper("temporal.StartOfWeekMapper", formats)
    };
    let two_days = mapper(
        "base.RollupMapper",
        json!({
            "upstream_mapper": week("%Y-%m-%d"),
            "window": mapper("window.WeekWindow", json!({"direction": "forward"})),
            "wait_policy": mapper("wait_policy.MinimumCount", json!({"n": 2})),
        }),
    );
    dag(
        "simple.PartitionedAssetTimetable",
        &json!({
            "asset_condition": {"__type": "asset_all", "objects": [asset("days"), asset("other")]},
            "partition_mapper_config": [[asset("days"), two_days]],
            "default_partition_mapper": week("%d.%m.%Y"),
        }),
    )
}

fn event<'a>(asset: &'a str, key: &'a str) -> PartitionEvent<'a> {
    PartitionEvent {
        asset_name: asset,
        asset_uri: asset,
        partition_key: key,
        partition_date: Some(now()),
        max_downstream_keys: 1000,
    }
}

#[test]
fn a_partition_is_ready_when_every_asset_has_sent_enough() {
    let dag = rolled_up();
    let mut open = OpenPartition {
        id: 1,
        dag_id: "d".to_owned(),
        partition_key: "2026-03-23".to_owned(),
        partition_date: None,
        fingerprint: None,
        received: Vec::new(),
    };
    let mut lines = Vec::new();
    for (asset_id, asset, key) in [
        (1, "days", "2026-03-23"),
        (2, "other", "29.03.2026"),
        (1, "days", "2026-03-23"),
        (1, "days", "2026-03-29"),
    ] {
        let Mapped::Keys {
            keys,
            partition_date,
            fingerprint,
        } = map_event(&dag, &event(asset, key))
        else {
            panic!("{key} is a key of {asset}");
        };
        assert_eq!(
            (keys, partition_date),
            (vec![open.partition_key.clone()], None)
        );
        open.fingerprint = Some(fingerprint);
        let asset = QueuedAsset {
            asset_id,
            name: asset.to_owned(),
            uri: asset.to_owned(),
            is_active: true,
            aliases: Vec::new(),
            created_at: now(),
        };
        open.received.push((asset, key.to_owned()));
        lines.push(format!("{key}: {:?}", partition_readiness(&dag, &[&open])));
    }
    let date = "2026-03-23T00:00:00Z".parse().unwrap();
    lines.push(told(
        &partition_triggered(&dag, &open, Some(date), "abcdefgh", now()).unwrap(),
    ));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    2026-03-23: [Waiting]
    29.03.2026: [Waiting]
    2026-03-23: [Waiting]
    2026-03-29: [Ready { partition_date: Some(2026-03-23T00:00:00Z) }]
    asset_triggered__2026-03-29T12:00:00+00:00_abcdefgh of 2026-03-23 2026-03-23T00:00:00+00:00, after 2026-03-29T12:00:00+00:00, logical date None, interval None
    "#);

    open.fingerprint = Some(json!({"days|days": null}));
    assert_eq!(
        partition_readiness(&dag, &[&open]),
        [PartitionReadiness::Stale]
    );
}

#[test]
fn keys_that_cannot_be_mapped_are_told_in_airflows_words() {
    let dag = rolled_up();
    let lines: Vec<String> = [("days", "March"), ("other", "2026-03-29")]
        .iter()
        .map(|(asset, key)| format!("{:?}", map_event(&dag, &event(asset, key))))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    Refused { event: "failed to map partition_key", extra: "Could not map partition_key 'March' for asset (name='days', uri='days') in target Dag 'd'. This likely indicates that the partition mapper in the target Dag is misconfigured or does not support this partition key.\nValueError: time data 'March' does not match format '%Y-%m-%d'" }
    Refused { event: "failed to map partition_key", extra: "Could not map partition_key '2026-03-29' for asset (name='other', uri='other') in target Dag 'd'. This likely indicates that the partition mapper in the target Dag is misconfigured or does not support this partition key.\nValueError: time data '2026-03-29' does not match format '%d.%m.%Y'" }
    "#);
}

#[test]
fn mappers_and_windows_of_ones_own_are_refused() {
    let mut own = rolled_up();
    let config = &mut own.timetable.var["partition_mapper_config"][0][1]["__var"];
    config["window"]["__type"] = json!("shop.BusinessDayWindow");
    let missing = scheduler::supported::check(&own);
    let whats: Vec<&str> = missing
        .iter()
        .map(|missing| missing.what.as_str())
        .collect();
    assert_eq!(
        whats,
        ["partitions through the class shop.BusinessDayWindow"]
    );
    assert_eq!(scheduler::supported::check(&rolled_up()), []);
}

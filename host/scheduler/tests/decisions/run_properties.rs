//! Laws of decisions about whole runs: which queued ones start, which due ones are made, and that both come to rest.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use model::{DagRun, DagRunState, SerializedDag};
use proptest::prelude::*;
use scheduler::plan::{DueDecision, NewDagRun};
use scheduler::runs::{due, start_queued};
use scheduler::snapshot::{DueDag, QueuedRun};
use serde_json::json;

fn epoch() -> DateTime<Utc> {
    "2024-03-30T00:00:00Z".parse().unwrap()
}

/// Runs of three DAGs, each in a backfill or not. What limits a run and what runs beside it is the same for all of its
/// DAG and backfill.
fn queued_runs() -> impl Strategy<Value = Vec<QueuedRun>> {
    let run = (
        0..3_usize,
        proptest::option::of(1..3_i32),
        -5..5_i64,
        1..9_i32,
    );
    let limits = proptest::collection::vec((0..4_i32, 0..4_i64), 9);
    (proptest::collection::vec(run, 0..40), limits).prop_map(|(runs, limits)| {
        runs.into_iter()
            .enumerate()
            .map(|(index, (dag, backfill_id, minutes, ordinal))| {
                let place = dag * 3 + usize::try_from(backfill_id.unwrap_or(0)).unwrap();
                let (max_active_runs, running) = limits[place];
                QueuedRun {
                    id: i32::try_from(index).unwrap(),
                    dag_id: format!("d{dag}"),
                    run_id: format!("r{index}"),
                    run_after: epoch() + TimeDelta::minutes(minutes),
                    logical_date: None,
                    backfill_id,
                    sort_ordinal: backfill_id.map(|_| ordinal),
                    max_active_runs,
                    running,
                }
            })
            .collect()
    })
}

fn place(run: &QueuedRun) -> (String, Option<i32>) {
    (run.dag_id.clone(), run.backfill_id)
}

fn scheduled_dag(schedule: usize, catchup: bool, zone: usize) -> SerializedDag {
    let zone = ["UTC", "Europe/Zurich", "America/St_Johns"][zone];
    let (class, var) = [
        (
            "trigger.CronTriggerTimetable",
            json!({"expression": "30 2 * * *", "timezone": zone, "interval": 0.0, "run_immediately": false}),
        ),
        (
            "interval.CronDataIntervalTimetable",
            json!({"expression": "*/20 * * * *", "timezone": zone}),
        ),
        (
            "trigger.DeltaTriggerTimetable",
            json!({"delta": 5400.0, "interval": 0.0}),
        ),
        ("simple.OnceTimetable", json!({})),
    ][schedule]
        .clone();
    let start = epoch() - TimeDelta::hours(5);
    SerializedDag::parse(&json!({"__version": 3, "dag": {
        "dag_id": "d", "timezone": "UTC", "fileloc": "/d.py", "catchup": catchup,
        "start_date": start.timestamp(), "tasks": [], "task_group": {"_group_id": null, "children": {}},
        "timetable": {"__type": format!("airflow.timetables.{class}"), "__var": var},
    }}))
    .unwrap()
}

fn made(run: &NewDagRun, id: i32) -> DagRun {
    DagRun {
        id,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        state: DagRunState::Queued,
        run_type: run.run_type,
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        run_after: run.run_after,
        queued_at: None,
        start_date: None,
        end_date: None,
        last_scheduling_decision: None,
        clear_number: 0,
        backfill_id: None,
        bundle_version: None,
        created_dag_version_id: None,
        context_carrier: serde_json::Value::Null,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_dag_and_no_backfill_gets_more_running_runs_than_it_may(mut queued in queued_runs()) {
        let now = epoch();
        let started = start_queued(&queued, now);
        let mut running: HashMap<_, i64> = queued.iter().map(|run| (place(run), run.running)).collect();
        for id in &started {
            let run = queued.iter().find(|run| run.id == *id).unwrap();
            prop_assert!(run.run_after <= now);
            let count = running.get_mut(&place(run)).unwrap();
            *count += 1;
            prop_assert!(*count <= i64::from(run.max_active_runs));
        }
        // Nothing that could start is left, and the order of rows does not matter.
        for run in queued.iter().filter(|run| !started.contains(&run.id)) {
            let is_full = running[&place(run)] >= i64::from(run.max_active_runs);
            prop_assert!(is_full || run.run_after > now);
        }
        queued.reverse();
        prop_assert_eq!(&start_queued(&queued, now), &started);
        // Applied, and asked again: nothing.
        queued.retain(|run| !started.contains(&run.id));
        for run in &mut queued {
            run.running = running[&place(run)];
        }
        prop_assert_eq!(start_queued(&queued, now), Vec::<i32>::new());
    }

    #[test]
    fn what_is_due_is_made_once_and_comes_to_rest(
        schedule in 0..4_usize, catchup: bool, zone in 0..3_usize, limit in 1..40_i32,
    ) {
        let dag = scheduled_dag(schedule, catchup, zone);
        let now = epoch() + TimeDelta::hours(30);
        let mut next = scheduler::runs::next_after(&dag, None, epoch()).unwrap();
        let mut runs: Vec<DagRun> = Vec::new();
        for _ in 0..200 {
            if next.create_after.is_none_or(|at| at > now) {
                break;
            }
            let mut due_dag = DueDag {
                dag_id: "d".to_owned(),
                next: next.clone(),
                max_active_runs: limit,
                active_runs: i64::try_from(runs.len()).unwrap(),
                existing: None,
            };
            match due(&dag, &due_dag, "suffix", now).unwrap() {
                DueDecision::Create { run, next: after } => {
                    prop_assert!(runs.iter().all(|other| other.run_id != run.run_id));
                    prop_assert!(runs.iter().all(|other| other.logical_date < run.logical_date));
                    runs.push(made(&run, i32::try_from(runs.len()).unwrap()));
                    prop_assert!(runs.len() <= usize::try_from(limit).unwrap());
                    // Had the dates not been stored, the run would not be made twice.
                    due_dag.existing = runs.last().cloned();
                    let again = due(&dag, &due_dag, "suffix", now).unwrap();
                    prop_assert_eq!(again, DueDecision::Advance { next: after.clone() });
                    prop_assert!(after.create_after.is_none_or(|at| Some(at) > next.create_after));
                    next = after;
                }
                DueDecision::AtLimit => {
                    prop_assert_eq!(runs.len(), usize::try_from(limit).unwrap());
                    return Ok(());
                }
                DueDecision::Advance { .. } => prop_assert!(false, "no run exists"),
            }
        }
        prop_assert!(next.create_after.is_none_or(|at| at > now), "it does not come to rest");
        prop_assert!(!runs.is_empty());
    }
}

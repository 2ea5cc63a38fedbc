//! New runs of DAGs that are due, and queued runs that may start.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use metadata::dag_runs::{Inserted, Origin};
use metadata::serialized::StoredDag;
use metadata::{asset_queue, dag_runs, due, timetables};
use scheduler::plan::DueDecision;
use scheduler::runs::{AssetReadiness, asset_readiness};
use scheduler::snapshot::AssetQueue;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Report, custom, stored};
use crate::house::House;

/// Makes the runs that are due; answers how many DAGs moved on.
pub(super) async fn due_runs(
    house: &House,
    db: &mut PgConnection,
    job_id: i32,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let due_dags = due::due_dags(db, now).await?;
    if due_dags.is_empty() {
        return Ok(0);
    }
    let dag_ids: Vec<String> = due_dags.iter().map(|dag| dag.dag_id.clone()).collect();
    let mut stored = stored::latest(house, db, &dag_ids, report, now).await?;
    let custom = due_dags
        .iter()
        .any(|dag| is_custom(stored.get(&dag.dag_id)));
    let mut named = match custom {
        true => timetables::run_ids(db, &dag_ids).await?,
        false => HashMap::new(),
    };
    let mut moved = 0;
    for due_dag in &due_dags {
        // Where there is none, the dag-processor is between two statements.
        let Some(stored) = stored.remove(&due_dag.dag_id) else {
            continue;
        };
        if scheduler::runs::custom_timetable(&stored.dag.timetable).is_some() {
            let origin = Origin {
                dag_version_id: stored.dag_version_id,
                creating_job_id: Some(job_id),
            };
            let named = named.remove(&due_dag.dag_id);
            if custom::due_run(db, &stored, due_dag, named, &origin, report, now).await? {
                moved += 1;
            }
            continue;
        }
        match scheduler::runs::due(&stored.dag, due_dag, &suffix(), now) {
            Ok(DueDecision::Create { run, next }) => {
                let origin = Origin {
                    dag_version_id: stored.dag_version_id,
                    creating_job_id: Some(job_id),
                };
                if let Inserted::New(_) = dag_runs::insert(db, &run, &origin, now).await? {
                    report.runs_created += 1;
                }
                due::set_next(db, &due_dag.dag_id, &next).await?;
                moved += 1;
            }
            Ok(DueDecision::Advance { next }) => {
                due::set_next(db, &due_dag.dag_id, &next).await?;
                moved += 1;
            }
            Ok(DueDecision::AtLimit) => {}
            Err(error) => report.problem(&error),
        }
    }
    due::set_exceeds_max_active_runs(db, &dag_ids).await?;
    Ok(moved)
}

/// Makes the runs whose assets had their events; answers how many.
pub(super) async fn asset_runs(
    house: &House,
    db: &mut PgConnection,
    job_id: i32,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let waiting = asset_queue::waiting(db).await?;
    let ready: Vec<&str> = waiting
        .iter()
        .filter(|queue| is_ready(queue).is_some())
        .map(|queue| queue.dag_id.as_str())
        .collect();
    if ready.is_empty() {
        return Ok(0);
    }
    let locked = asset_queue::lock(db, &ready).await?;
    let dag_ids: Vec<String> = locked.iter().map(|queue| queue.dag_id.clone()).collect();
    let mut stored = stored::latest(house, db, &dag_ids, report, now).await?;
    let mut made = 0;
    for queue in &locked {
        // Looked at again: events that are being added just now are not among them.
        let Some(triggered) = is_ready(queue) else {
            continue;
        };
        let Some(stored) = stored.remove(&queue.dag_id) else {
            continue;
        };
        let run = match scheduler::runs::asset_triggered(&stored.dag, triggered, &suffix()) {
            Ok(run) => run,
            Err(error) => {
                report.problem(&error);
                continue;
            }
        };
        let origin = Origin {
            dag_version_id: stored.dag_version_id,
            creating_job_id: Some(job_id),
        };
        if let Inserted::New(id) = dag_runs::insert(db, &run, &origin, now).await? {
            asset_queue::consume(db, queue, id, triggered, stored.dag.catchup).await?;
            report.runs_created += 1;
            made += 1;
        }
    }
    due::set_exceeds_max_active_runs(db, &dag_ids).await?;
    Ok(made)
}

fn is_ready(queue: &AssetQueue) -> Option<DateTime<Utc>> {
    match asset_readiness(queue) {
        AssetReadiness::Ready { triggered } => Some(triggered),
        AssetReadiness::Incomplete | AssetReadiness::AtLimit => None,
    }
}

/// Eight characters as Airflow puts them behind the date of a run that may have a sibling.
pub(crate) fn suffix() -> String {
    Uuid::new_v4().simple().to_string()[..8].to_owned()
}

fn is_custom(stored: Option<&StoredDag>) -> bool {
    stored.is_some_and(|stored| scheduler::runs::custom_timetable(&stored.dag.timetable).is_some())
}

/// Starts queued runs within their limits; answers how many.
pub(super) async fn start_queued(
    db: &mut PgConnection,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let queued = dag_runs::queued(db, now).await?;
    let chosen = scheduler::runs::start_queued(&queued, now);
    let started = dag_runs::start(db, &chosen, now).await?;
    report.runs_started += started;
    Ok(started)
}

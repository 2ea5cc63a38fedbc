//! New runs of DAGs that are due, and queued runs that may start.

use chrono::{DateTime, Utc};
use metadata::dag_runs::{Inserted, Origin};
use metadata::{dag_runs, due};
use scheduler::plan::DueDecision;
use sqlx::PgConnection;

use super::{Error, Report};
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
    let mut stored = house.serialized.latest(db, &dag_ids).await?;
    let mut moved = 0;
    for due_dag in &due_dags {
        let stored = match stored.remove(&due_dag.dag_id) {
            Some(Ok(stored)) => stored,
            Some(Err(error)) => {
                report.problem(&error);
                continue;
            }
            // Not serialized yet: the dag-processor is between two statements.
            None => continue,
        };
        match scheduler::runs::due(&stored.dag, due_dag, now) {
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

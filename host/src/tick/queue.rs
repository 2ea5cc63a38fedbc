//! Scheduled task instances get slots, as far as there are any.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Error, Report, stored};
use crate::house::House;

pub(super) async fn scheduled(
    house: &House,
    db: &mut PgConnection,
    job_id: i32,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let parallelism = i64::from(house.environment.config().parallelism);
    let mut found = metadata::queue::candidates(db, parallelism).await?;
    if found.snapshot.candidates.is_empty() {
        return Ok(());
    }
    if !found.limited_dags.is_empty() {
        let limited = stored::latest(house, db, &found.limited_dags, report, now).await?;
        for candidate in &mut found.snapshot.candidates {
            let Some(stored) = limited.get(&candidate.dag_id) else {
                continue;
            };
            if let Some(task) = stored.dag.task(&candidate.task_id) {
                candidate.max_active_tis_per_dag = task.max_active_tis_per_dag;
                candidate.max_active_tis_per_dagrun = task.max_active_tis_per_dagrun;
            }
        }
    }
    let plan = scheduler::queue::plan(&found.snapshot);
    report.task_instances_queued +=
        metadata::queue::queue(db, &plan.queue, Some(job_id), now).await?;
    Ok(())
}

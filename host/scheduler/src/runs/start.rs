//! Which queued runs start.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::snapshot::QueuedRun;

/// The ids of the runs to set running, in order. A DAG never gets more running runs than its
/// `max_active_runs`; a backfill counts for itself. `airflow: DagRun.get_queued_dag_runs_to_set_running,
/// SchedulerJobRunner._start_queued_dagruns`
#[must_use]
pub fn start_queued(queued: &[QueuedRun], now: DateTime<Utc>) -> Vec<i32> {
    let mut order: Vec<&QueuedRun> = queued.iter().filter(|run| run.run_after <= now).collect();
    // Runs outside of backfills first, then the earliest. The id keeps the order independent of the rows'.
    order.sort_by_key(|run| (run.sort_ordinal, run.running, run.run_after, run.id));
    let mut started: HashMap<(&str, Option<i32>), i64> = HashMap::new();
    let mut ids = Vec::new();
    for run in order {
        let mine = started
            .entry((run.dag_id.as_str(), run.backfill_id))
            .or_default();
        if run.running + *mine < i64::from(run.max_active_runs) {
            *mine += 1;
            ids.push(run.id);
        }
    }
    ids
}

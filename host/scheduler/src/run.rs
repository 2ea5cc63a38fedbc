//! Decisions about the task instances of one running run.

use chrono::{DateTime, Utc};
use model::SerializedDag;

use crate::plan::{RunPlan, Verdict};
use crate::snapshot::RunSnapshot;

/// Everything that can happen to the run's task instances now, to a fixpoint, and what becomes of the run.
/// `airflow: DagRun.update_state, DagRun.schedule_tis`
#[must_use]
pub fn plan(_dag: &SerializedDag, _snapshot: &RunSnapshot, _now: DateTime<Utc>) -> RunPlan {
    RunPlan {
        decisions: Vec::new(),
        waiting: Vec::new(),
        verdict: Verdict::Running,
    }
}

/// When the run must be looked at again though nothing else happens: retries, sensors, its timeout.
#[must_use]
pub fn next_wake(
    _dag: &SerializedDag,
    _snapshot: &RunSnapshot,
    _plan: &RunPlan,
    _now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    None
}

//! The task instances of a new run.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::{DagRunType, NewTaskInstance, SerializedDag};

/// Lengths of XComs known when the run is made, by task id: none for a run that is new.
pub type MappedLengths = HashMap<String, i64>;

/// `airflow: DagRun.verify_integrity` for a run without task instances
#[must_use]
pub fn task_instances(
    _dag: &SerializedDag,
    _logical_date: Option<DateTime<Utc>>,
    _run_type: DagRunType,
    _mapped_lengths: &MappedLengths,
) -> Vec<NewTaskInstance> {
    Vec::new()
}

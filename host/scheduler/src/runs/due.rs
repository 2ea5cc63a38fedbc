//! Runs that a timetable asks for.

use chrono::{DateTime, Utc};
use model::{DagRun, SerializedDag};

use crate::Error;
use crate::plan::DueDecision;
use crate::snapshot::{DueDag, NextDagRun};

/// The run that the next one is computed from: the newest scheduled or backfill run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    pub logical_date: Option<DateTime<Utc>>,
    /// Start and end.
    pub data_interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    pub run_after: DateTime<Utc>,
}

impl From<&DagRun> for LastRun {
    fn from(run: &DagRun) -> Self {
        Self {
            logical_date: run.logical_date,
            data_interval: run.data_interval_start.zip(run.data_interval_end),
            run_after: run.run_after,
        }
    }
}

/// What to do about a DAG whose `next_dagrun_create_after` has come. `airflow: SchedulerJobRunner._create_dag_runs`
pub fn due(dag: &SerializedDag, due: &DueDag, now: DateTime<Utc>) -> Result<DueDecision, Error> {
    if let Some(existing) = &due.existing {
        let next = next_after(dag, Some(&LastRun::from(existing)), now)?;
        return Ok(DueDecision::Advance { next });
    }
    Ok(DueDecision::AtLimit)
}

/// The `dag.next_dagrun*` columns after a run was created, or for a DAG without one.
/// `airflow: DagModel.calculate_dagrun_date_fields`
pub fn next_after(
    _dag: &SerializedDag,
    _last: Option<&LastRun>,
    _now: DateTime<Utc>,
) -> Result<NextDagRun, Error> {
    Ok(NextDagRun::default())
}

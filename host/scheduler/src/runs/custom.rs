//! DAGs whose timetable is a class of the user's own. Its dates come from Python, outside of any tick: what is due is
//! made from the stored `next_dagrun*` and a run id that Python gave before, and what comes after it is asked for.

use chrono::{DateTime, Utc};
use model::{SerializedDag, TimetableData};

use super::due::{NewScheduled, new_scheduled};
use super::manual::check_run_type;
use crate::Error;
use crate::plan::NewDagRun;
use crate::snapshot::DueDag;
use crate::timetables::{Restriction, Timetable, Unreadable};
use model::DagRunType;

/// The import path of the timetable's class, or of the one inside it, if Airflow does not ship it.
#[must_use]
pub fn custom_timetable(timetable: &TimetableData) -> Option<String> {
    match Timetable::read(timetable) {
        Err(Unreadable::Class(class)) if !class.starts_with("airflow.timetables.") => Some(class),
        Ok(_) | Err(Unreadable::Class(_) | Unreadable::Data { .. } | Unreadable::Cron { .. }) => {
            None
        }
    }
}

/// What to do about a DAG with a timetable of its own whose `next_dagrun_create_after` has come.
#[derive(Debug, Clone, PartialEq)]
pub enum CustomDecision {
    /// Make the run, clear `next_dagrun*`, and ask for the run after it.
    Create { run: NewDagRun },
    /// The run exists already: clear `next_dagrun*`, and ask for the run after this one.
    Follow { run_id: String },
    /// Ask what the run that is due is called.
    Name,
    /// At its limit of active runs.
    AtLimit,
}

/// `run_id`: what the timetable calls the run that is due, if it was asked.
/// `airflow: SchedulerJobRunner._create_dag_runs`
pub fn due_custom(
    dag: &SerializedDag,
    due: &DueDag,
    run_id: Option<&str>,
) -> Result<CustomDecision, Error> {
    if let Some(existing) = &due.existing {
        return Ok(CustomDecision::Follow {
            run_id: existing.run_id.clone(),
        });
    }
    if due.active_runs >= i64::from(due.max_active_runs) {
        return Ok(CustomDecision::AtLimit);
    }
    check_run_type(dag, DagRunType::Scheduled)?;
    let Some(run_after) = due.next.create_after else {
        return Err(Error::IncompleteNextRun {
            dag_id: dag.dag_id.clone(),
        });
    };
    let Some(run_id) = run_id else {
        return Ok(CustomDecision::Name);
    };
    let run = new_scheduled(
        dag,
        NewScheduled {
            run_id: run_id.to_owned(),
            next: &due.next,
            data_interval: due.next.data_interval_start.zip(due.next.data_interval_end),
            run_after,
        },
    )?;
    Ok(CustomDecision::Create { run })
}

/// What a timetable is told about the DAG: the earliest start, the latest end, and catchup.
/// `airflow: SerializedDAG._time_restriction`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRestriction {
    pub earliest: Option<DateTime<Utc>>,
    pub latest: Option<DateTime<Utc>>,
    pub catchup: bool,
}

impl TimeRestriction {
    #[must_use]
    pub fn of(dag: &SerializedDag) -> Self {
        let Restriction {
            earliest,
            latest,
            catchup,
        } = Restriction::of(dag);
        Self {
            earliest,
            latest,
            catchup,
        }
    }
}

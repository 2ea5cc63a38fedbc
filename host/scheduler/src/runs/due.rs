//! Runs that a timetable asks for.

use chrono::{DateTime, Utc};
use model::{DagRun, DagRunTriggeredBy, DagRunType, SerializedDag};
use serde_json::Value;

use super::manual::{check_params, check_run_id, check_run_type, isoformat};
use super::{MappedLengths, task_instances};
use crate::Error;
use crate::plan::{DueDecision, NewDagRun};
use crate::snapshot::{DueDag, NextDagRun};
use crate::timetables::{Interval, Problem, Restriction, Timetable, Unreadable};

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

/// What to do about a DAG whose `next_dagrun_create_after` has come; `suffix` makes the id of a partition's run unique.
/// `airflow: SchedulerJobRunner._create_dag_runs`
pub fn due(
    dag: &SerializedDag,
    due: &DueDag,
    suffix: &str,
    now: DateTime<Utc>,
) -> Result<DueDecision, Error> {
    if let Some(existing) = &due.existing {
        let next = next_after(dag, Some(&LastRun::from(existing)), now)?;
        return Ok(DueDecision::Advance { next });
    }
    if due.active_runs >= i64::from(due.max_active_runs) {
        return Ok(DueDecision::AtLimit);
    }
    check_run_type(dag, DagRunType::Scheduled)?;
    if let Timetable::CronPartition(_) = timetable(dag)? {
        return due_partition(dag, due, suffix, now);
    }
    let (Some(logical_date), Some(run_after)) = (due.next.logical_date, due.next.create_after)
    else {
        return Err(Error::IncompleteNextRun {
            dag_id: dag.dag_id.clone(),
        });
    };
    let stored = due.next.data_interval_start.zip(due.next.data_interval_end);
    let (start, end) = match stored {
        Some(interval) => interval,
        None => inferred(dag, run_after)?,
    };
    let run = new_scheduled(
        dag,
        NewScheduled {
            run_id: format!("scheduled__{}", isoformat(run_after)),
            next: &due.next,
            data_interval: Some((start, end)),
            run_after,
        },
    )?;
    let last = LastRun {
        logical_date: Some(logical_date),
        data_interval: Some((start, end)),
        run_after,
    };
    let next = next_after(dag, Some(&last), now)?;
    Ok(DueDecision::Create {
        run: Box::new(run),
        next,
    })
}

/// A run of a partition has a key, and neither a logical date nor a data interval.
fn due_partition(
    dag: &SerializedDag,
    due: &DueDag,
    suffix: &str,
    now: DateTime<Utc>,
) -> Result<DueDecision, Error> {
    let (Some(key), Some(run_after)) = (&due.next.partition_key, due.next.create_after) else {
        return Err(Error::IncompleteNextRun {
            dag_id: dag.dag_id.clone(),
        });
    };
    let run = new_scheduled(
        dag,
        NewScheduled {
            // airflow: CronPartitionTimetable.generate_run_id
            run_id: format!("scheduled__{}__{key}__{suffix}", isoformat(run_after)),
            next: &due.next,
            data_interval: None,
            run_after,
        },
    )?;
    let last = LastRun {
        logical_date: None,
        data_interval: None,
        run_after,
    };
    let next = next_after(dag, Some(&last), now)?;
    Ok(DueDecision::Create {
        run: Box::new(run),
        next,
    })
}

/// What is new about a run that a timetable asks for.
pub(super) struct NewScheduled<'a> {
    pub(super) run_id: String,
    pub(super) next: &'a NextDagRun,
    pub(super) data_interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    pub(super) run_after: DateTime<Utc>,
}

pub(super) fn new_scheduled(
    dag: &SerializedDag,
    new: NewScheduled<'_>,
) -> Result<NewDagRun, Error> {
    check_run_id(&new.run_id, DagRunType::Scheduled)?;
    let conf = Value::Object(serde_json::Map::new());
    check_params(dag, &conf)?;
    let logical_date = new.next.logical_date;
    Ok(NewDagRun {
        dag_id: dag.dag_id.clone(),
        run_id: new.run_id,
        run_type: DagRunType::Scheduled,
        triggered_by: DagRunTriggeredBy::Timetable,
        triggering_user_name: None,
        logical_date,
        data_interval_start: new.data_interval.map(|(start, _)| start),
        data_interval_end: new.data_interval.map(|(_, end)| end),
        run_after: new.run_after,
        partition_key: new.next.partition_key.clone(),
        partition_date: new.next.partition_date,
        conf,
        task_instances: task_instances(
            dag,
            logical_date,
            DagRunType::Scheduled,
            &MappedLengths::new(),
        ),
    })
}

/// The `dag.next_dagrun*` columns after a run was created, or for a DAG without one.
/// `airflow: DagModel.calculate_dagrun_date_fields`
pub fn next_after(
    dag: &SerializedDag,
    last: Option<&LastRun>,
    now: DateTime<Utc>,
) -> Result<NextDagRun, Error> {
    let timetable = timetable(dag)?;
    if let Timetable::CronPartition(cron) = &timetable {
        let last = last.map(|last| last.run_after);
        let next = cron
            .next(last, &Restriction::of(dag), now)
            .map_err(|problem| no_date(dag, problem))?;
        return Ok(next.map_or_else(NextDagRun::default, |info| NextDagRun {
            create_after: Some(info.run_after),
            partition_key: Some(info.partition_key),
            partition_date: Some(info.partition_date),
            ..NextDagRun::default()
        }));
    }
    let last = match last {
        None => None,
        Some(last) => Some(match last.data_interval {
            Some((start, end)) => Interval { start, end },
            None => timetable
                .infer_manual(last.run_after)
                .map_err(|problem| no_date(dag, problem))?,
        }),
    };
    let next = timetable
        .next(last, &Restriction::of(dag), now)
        .map_err(|problem| no_date(dag, problem))?;
    Ok(next.map_or_else(NextDagRun::default, |info| NextDagRun {
        logical_date: Some(info.interval.start),
        data_interval_start: Some(info.interval.start),
        data_interval_end: Some(info.interval.end),
        create_after: Some(info.run_after),
        ..NextDagRun::default()
    }))
}

/// The data interval of a run that the timetable did not ask for.
pub(super) fn inferred(
    dag: &SerializedDag,
    run_after: DateTime<Utc>,
) -> Result<(DateTime<Utc>, DateTime<Utc>), Error> {
    let Interval { start, end } = timetable(dag)?
        .infer_manual(run_after)
        .map_err(|problem| no_date(dag, problem))?;
    Ok((start, end))
}

/// `airflow: CronPartitionTimetable.generate_run_id`
pub(super) fn names_at_random(dag: &SerializedDag) -> bool {
    matches!(timetable(dag), Ok(Timetable::CronPartition(_)))
}

fn timetable(dag: &SerializedDag) -> Result<Timetable, Error> {
    Timetable::read(&dag.timetable).map_err(|unreadable| unreadable_timetable(dag, unreadable))
}

pub(super) fn unreadable_timetable(dag: &SerializedDag, unreadable: Unreadable) -> Error {
    let dag_id = dag.dag_id.clone();
    match unreadable {
        Unreadable::Class(class) => Error::UnknownTimetable { dag_id, class },
        Unreadable::Data { class, problem } => Error::MalformedTimetable {
            dag_id,
            class,
            problem,
        },
        Unreadable::Cron {
            expression,
            problem,
        } => Error::Cron {
            dag_id,
            expression,
            problem,
        },
    }
}

fn no_date(dag: &SerializedDag, problem: Problem) -> Error {
    Error::NoNextRun {
        dag_id: dag.dag_id.clone(),
        problem: problem.0,
    }
}

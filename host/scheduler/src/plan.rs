//! What should happen next, as values. The `metadata` room applies them, each guarded by the state it was
//! decided on; applying a plan and planning again yields nothing.

use std::fmt;

use chrono::{DateTime, Utc};
use model::{DagRunState, DagRunTriggeredBy, DagRunType, NewTaskInstance, TaskInstanceState};
use uuid::Uuid;

use crate::snapshot::NextDagRun;

/// What to do about a DAG that is due.
#[derive(Debug, Clone, PartialEq)]
pub enum DueDecision {
    /// Make the run, then store `next`.
    Create {
        run: Box<NewDagRun>,
        next: NextDagRun,
    },
    /// The run exists already: only move `next_dagrun*` on.
    Advance { next: NextDagRun },
    /// At its limit of active runs: set `exceeds_max_non_backfill`.
    AtLimit,
}

/// A run to be inserted with its task instances. `airflow: SerializedDAG.create_dagrun`
#[derive(Debug, Clone, PartialEq)]
pub struct NewDagRun {
    pub dag_id: String,
    pub run_id: String,
    pub run_type: DagRunType,
    pub triggered_by: DagRunTriggeredBy,
    pub triggering_user_name: Option<String>,
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub partition_key: Option<String>,
    pub partition_date: Option<DateTime<Utc>>,
    pub conf: serde_json::Value,
    pub task_instances: Vec<NewTaskInstance>,
}

/// When a running run wants to be looked at again although nothing in it changes. Nothing set: never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextLook {
    pub at: Option<DateTime<Utc>>,
    /// After each change in this run of the same DAG.
    pub after_run_id: Option<String>,
    /// Once its DAG is not paused any more.
    pub is_held: bool,
}

/// What to do about one running run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// In the order in which they must be applied.
    pub decisions: Vec<Decision>,
    /// Why each unfinished task instance does not move now.
    pub waiting: Vec<(Uuid, Waiting)>,
    pub verdict: Verdict,
}

/// One change to one task instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// State scheduled; the try number goes up by one unless it only comes back from a reschedule.
    /// Guard: state is none, up_for_retry or up_for_reschedule. `airflow: DagRun.schedule_tis`
    Schedule { id: Uuid, new_try: bool },
    /// An EmptyOperator: success without a worker, the try number goes up by one.
    /// Guard as for `Schedule`.
    SucceedEmpty { id: Uuid },
    /// A state that the dependencies force: skipped, upstream_failed or removed. start_date is kept or now,
    /// end_date now, the try number stays. Guard: the state is `from`. `airflow: TaskInstance.set_state`
    Force {
        id: Uuid,
        from: Option<TaskInstanceState>,
        to: TaskInstanceState,
    },
    /// A state that mapping, a new version of the DAG or the run's timeout gives: only the state is written.
    /// Guard: the state is `from`.
    Mark {
        id: Uuid,
        from: Option<TaskInstanceState>,
        to: TaskInstanceState,
    },
    /// Back to no state: the task of a removed task instance is in the DAG again.
    Restore { id: Uuid },
    /// The unexpanded task instance (-1) becomes the first mapped one, keeping its uuid; its XComs, rendered
    /// fields, task_map, note and reschedules are deleted first. `airflow: TaskMap.expand_mapped_task`
    Expand { id: Uuid },
    /// A new task instance of an expanded task. The uuid is chosen here so that later decisions may name it.
    Insert {
        id: Uuid,
        dag_version_id: Option<Uuid>,
        task_instance: Box<NewTaskInstance>,
    },
    /// Deletes the row: an unexpanded task instance whose mapped ones exist already.
    Delete { id: Uuid },
}

/// Why a task instance does not move. Its `Display` is a sentence for people.
#[derive(Debug, Clone, PartialEq)]
pub enum Waiting {
    /// Until the delay of its retry is over.
    RetryDelay { until: DateTime<Utc> },
    /// Until a sensor's next poke.
    Reschedule { until: DateTime<Utc> },
    /// The trigger rule wants more finished upstream task instances.
    Upstream {
        rule: String,
        done: usize,
        total: usize,
    },
    /// depends_on_past or wait_for_downstream.
    PreviousRun,
    /// The length of what it maps over is not known yet.
    MappedLength,
    /// In the hands of an executor, a triggerer or a person: scheduled, queued, running, deferred, ….
    InState { state: TaskInstanceState },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetryDelay { until } => write!(f, "waits for its retry delay until {until}"),
            Self::Reschedule { until } => write!(f, "is rescheduled to {until}"),
            Self::Upstream { rule, done, total } => {
                write!(
                    f,
                    "waits for upstream tasks: {done} of {total} finished, rule {rule}"
                )
            }
            Self::PreviousRun => f.write_str("waits for the previous run of the DAG"),
            Self::MappedLength => f.write_str("waits for the list it is mapped over"),
            Self::InState { state } => write!(f, "is {state}"),
        }
    }
}

/// What becomes of the run. `airflow: DagRun.update_state`
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Goes on.
    Running,
    /// All leaves succeeded or were skipped.
    Success,
    Failed(FailedReason),
}

impl Verdict {
    /// The state to store, if the run ended.
    #[must_use]
    pub fn end_state(&self) -> Option<DagRunState> {
        match self {
            Self::Running => None,
            Self::Success => Some(DagRunState::Success),
            Self::Failed(_) => Some(DagRunState::Failed),
        }
    }
}

/// Airflow's own words for why a run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedReason {
    /// A leaf failed.
    TaskFailure,
    /// Nothing can move any more.
    AllTasksDeadlocked,
    /// `dagrun_timeout` passed.
    TimedOut,
}

impl FailedReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailure => "task_failure",
            Self::AllTasksDeadlocked => "all_tasks_deadlocked",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Which scheduled task instances go to the executor now, best first, and why the others wait.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueuePlan {
    pub queue: Vec<Uuid>,
    pub waiting: Vec<(Uuid, Full)>,
}

/// The limit that holds a scheduled task instance back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Full {
    Parallelism {
        limit: i64,
    },
    /// `exists: false`: there is no pool of this name.
    Pool {
        pool: String,
        exists: bool,
    },
    /// `pool_slots` of the task is more than the whole pool has.
    PoolTooSmall {
        pool: String,
        slots: i32,
    },
    MaxActiveTasks {
        limit: i32,
    },
    MaxActiveTisPerDag {
        limit: i32,
    },
    MaxActiveTisPerDagRun {
        limit: i32,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parallelism { limit } => write!(f, "executor.parallelism ({limit}) is reached"),
            Self::Pool { pool, exists: true } => write!(f, "pool {pool:?} has no open slot"),
            Self::Pool {
                pool,
                exists: false,
            } => write!(f, "pool {pool:?} does not exist"),
            Self::PoolTooSmall { pool, slots } => {
                write!(f, "wants {slots} slots, more than pool {pool:?} has")
            }
            Self::MaxActiveTasks { limit } => write!(f, "max_active_tasks ({limit}) is reached"),
            Self::MaxActiveTisPerDag { limit } => {
                write!(f, "max_active_tis_per_dag ({limit}) is reached")
            }
            Self::MaxActiveTisPerDagRun { limit } => {
                write!(f, "max_active_tis_per_dagrun ({limit}) is reached")
            }
        }
    }
}

/// What becomes of a task instance whose try ended without a report. `airflow: TaskInstance.handle_failure`
#[derive(Debug, Clone, PartialEq)]
pub enum Lost {
    /// Archive the try, new uuid, state up_for_retry.
    UpForRetry,
    /// State failed; with `fail_fast` the rest of the run is ended as well.
    Failed,
    /// It never started: scheduled again, the try number is not used up.
    Requeue,
    /// Taken from it while it ran: archive the try, state up_for_retry, and one try more than before.
    Again { max_tries: i32 },
    /// It was cleared while it ran: no state, and so many tries as a clear gives. `airflow: clear_task_instances`
    Cleared { max_tries: i32 },
}

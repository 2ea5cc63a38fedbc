//! What a decision may look at. The `metadata` room fills these from Postgres, tests fill them by hand;
//! nothing here knows where it came from.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::{AssetCondition, DagRun, SerializedDag, TaskInstance, TaskInstanceState};
use uuid::Uuid;

/// A DAG whose `next_dagrun_create_after` has come. `airflow: DagModel.dags_needing_dagruns`
#[derive(Debug, Clone)]
pub struct DueDag {
    pub dag_id: String,
    /// The `dag.next_dagrun*` columns as they stand.
    pub next: NextDagRun,
    pub max_active_runs: i32,
    /// Queued and running runs of the DAG that are not backfills.
    pub active_runs: i64,
    /// A run with `logical_date = next.logical_date` exists already, of any type.
    pub existing: Option<DagRun>,
}

/// A DAG that assets trigger, with the events that wait for it in `asset_dag_run_queue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetQueue {
    pub dag_id: String,
    pub condition: AssetCondition,
    pub queued: Vec<QueuedAsset>,
    pub max_active_runs: i32,
    /// Queued and running runs of the DAG, of all types.
    pub active_runs: i64,
}

/// An asset that had an event since the DAG's last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAsset {
    pub asset_id: i32,
    pub name: String,
    pub uri: String,
    /// Has a row in `asset_active`.
    pub is_active: bool,
    /// The aliases that it was ever emitted through.
    pub aliases: Vec<String>,
    pub created_at: DateTime<Utc>,
}

/// A partition that events have queued for a DAG: a row of `asset_partition_dag_run` without a run.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenPartition {
    pub id: i32,
    pub dag_id: String,
    pub partition_key: String,
    /// What the events carried. `None`: nothing, or they disagree.
    pub partition_date: Option<DateTime<Utc>>,
    /// `rollup_fingerprint`
    pub fingerprint: Option<serde_json::Value>,
    /// The active assets that had events for it, each with the key of one event.
    pub received: Vec<(QueuedAsset, String)>,
}

/// The `dag.next_dagrun*` columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextDagRun {
    /// `next_dagrun`
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    /// `next_dagrun_create_after`: when the run is due. `None`: never.
    pub create_after: Option<DateTime<Utc>>,
    /// `next_dagrun_partition_key`
    pub partition_key: Option<String>,
    pub partition_date: Option<DateTime<Utc>>,
}

/// A run in state queued, with what limits it. `airflow: DagRun.get_queued_dag_runs_to_set_running`
#[derive(Debug, Clone)]
pub struct QueuedRun {
    pub id: i32,
    pub dag_id: String,
    pub run_id: String,
    pub run_after: DateTime<Utc>,
    pub logical_date: Option<DateTime<Utc>>,
    pub backfill_id: Option<i32>,
    pub sort_ordinal: Option<i32>,
    /// Of the DAG, or of the backfill when the run belongs to one.
    pub max_active_runs: i32,
    /// Runs already running that count against `max_active_runs`.
    pub running: i64,
}

/// A running run, with everything that its task instances' dependencies look at.
#[derive(Debug, Clone)]
pub struct RunSnapshot {
    pub run: DagRun,
    /// All task instances of the run.
    pub task_instances: Vec<TaskInstance>,
    /// XComs with the key `skipmixin_key`: what branches and short circuits left.
    pub skips: Vec<SkipXcom>,
    /// `task_map.length` of unmapped producers, by task id.
    pub mapped_lengths: HashMap<String, i64>,
    /// Number of `return_value` rows with `map_index >= 0`, by task id.
    pub return_values: HashMap<String, i64>,
    /// The newest `task_reschedule.reschedule_date` of each task instance that has one.
    pub reschedule_dates: HashMap<Uuid, DateTime<Utc>>,
    /// Nothing of the run is of the DAG's latest version yet. `airflow: DagRun.check_version_id_exists_in_dr`
    pub dag_changed: bool,
    /// Only filled when a task of the DAG depends on the past.
    pub previous_run: Option<PreviousRun>,
    /// `sort_ordinal` in the backfill, when the run belongs to one.
    pub backfill_sort_ordinal: Option<i32>,
}

/// What a task that can skip its downstream recorded. `airflow: SkipMixin`
#[derive(Debug, Clone)]
pub struct SkipXcom {
    pub task_id: String,
    pub map_index: i32,
    /// `{"followed": [..]}` or `{"skipped": [..]}`.
    pub value: serde_json::Value,
}

/// The run before, as depends_on_past sees it. `airflow: PrevDagrunDep`
#[derive(Debug, Clone)]
pub struct PreviousRun {
    pub run_id: String,
    pub logical_date: Option<DateTime<Utc>>,
    /// Task id, map index and state of all its task instances.
    pub task_instances: Vec<(String, i32, Option<TaskInstanceState>)>,
    /// Tasks without a task instance in this run that have one in an earlier run, for `ignore_first_depends_on_past`.
    pub tasks_with_history: Vec<String>,
}

/// What the queueing step looks at. `airflow: SchedulerJobRunner._executable_task_instances_to_queued`
#[derive(Debug, Clone, Default)]
pub struct QueueSnapshot {
    /// Task instances in state scheduled of running runs of DAGs that are not paused.
    pub candidates: Vec<Candidate>,
    pub pools: HashMap<String, Pool>,
    /// Queued and running task instances in the whole database.
    pub occupied: i64,
    /// `executor.parallelism`.
    pub parallelism: i64,
    /// Queued and running task instances by (dag id, run id).
    pub active_in_run: HashMap<(String, String), i64>,
    /// By (dag id, task id), in states running, queued, deferred, awaiting_input.
    pub active_of_task: HashMap<(String, String), i64>,
    /// By (dag id, run id, task id), in the same states.
    pub active_of_task_in_run: HashMap<(String, String, String), i64>,
}

/// A scheduled task instance that may be queued.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: Uuid,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    pub map_index: i32,
    pub logical_date: Option<DateTime<Utc>>,
    pub pool: String,
    pub pool_slots: i32,
    pub priority_weight: i32,
    /// `dag.max_active_tasks`, counted per run.
    pub max_active_tasks: i32,
    pub max_active_tis_per_dag: Option<i32>,
    pub max_active_tis_per_dagrun: Option<i32>,
}

/// A row of `slot_pool` with what is taken of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// -1: without limit.
    pub slots: i32,
    /// Slots of queued and running task instances, and of deferred ones when the pool includes them.
    pub occupied: i64,
}

/// A DAG beside the snapshot of one of its runs.
pub type DagOf<'a> = &'a SerializedDag;

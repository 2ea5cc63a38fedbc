//! A DAG as the scheduler sees it: what Airflow's serialization leaves of the Python file, with its edges in
//! both directions. Big: keep it behind an `Arc`.

mod document;
mod read;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::{DagRunType, Error, ExpandInput, TriggerRule, WeightRule};

/// Position of a task in [`SerializedDag::tasks`].
pub type TaskIndex = usize;
/// Position of a group in [`SerializedDag::groups`].
pub type GroupIndex = usize;

/// `airflow: SerializedDAG`
#[derive(Debug, Clone, PartialEq)]
pub struct SerializedDag {
    pub dag_id: String,
    pub dag_display_name: Option<String>,
    pub fileloc: Option<String>,
    pub relative_fileloc: Option<String>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    pub catchup: bool,
    pub timetable: TimetableData,
    pub max_active_tasks: i32,
    pub max_active_runs: i32,
    pub max_consecutive_failed_dag_runs: i32,
    pub dagrun_timeout: Option<TimeDelta>,
    pub fail_fast: bool,
    pub disable_bundle_versioning: bool,
    pub has_on_success_callback: bool,
    pub has_on_failure_callback: bool,
    /// `None`: all.
    pub allowed_run_types: Option<Vec<DagRunType>>,
    /// Ids of `deadline_alert` rows.
    pub deadline: Vec<String>,
    pub params: Vec<(String, Param)>,
    /// In the order of the document.
    pub tasks: Vec<SerializedTask>,
    /// Groups inside the root group, parents before children. Tasks of the root group have `group: None`.
    pub groups: Vec<TaskGroup>,
    /// Upstream before downstream, otherwise in the order of the document.
    pub topological_order: Vec<TaskIndex>,
    task_indexes: HashMap<String, TaskIndex>,
}

/// A task, mapped or not, with all defaults filled in. `airflow: SerializedBaseOperator, SerializedMappedOperator`
#[derive(Debug, Clone, PartialEq)]
pub struct SerializedTask {
    pub task_id: String,
    /// The class name; `task_instance.operator`.
    pub task_type: String,
    /// `task_instance.custom_operator_name`, as `@task`.
    pub operator_name: String,
    pub task_display_name: String,
    pub trigger_rule: TriggerRule,
    pub retries: i32,
    /// Seconds.
    pub retry_delay: f64,
    /// 0 and 1: the delay does not grow.
    pub retry_exponential_backoff: f64,
    /// Seconds.
    pub max_retry_delay: Option<f64>,
    pub has_retry_policy: bool,
    /// Also true when `wait_for_downstream` is.
    pub depends_on_past: bool,
    pub wait_for_downstream: bool,
    pub ignore_first_depends_on_past: bool,
    pub pool: String,
    pub pool_slots: i32,
    pub queue: String,
    pub priority_weight: i32,
    pub weight_rule: WeightRule,
    /// What a rule of the user's own said when the file was parsed; beside the document, see
    /// [`SerializedDag::set_custom_weights`].
    pub custom_weight: Option<i32>,
    pub max_active_tis_per_dag: Option<i32>,
    pub max_active_tis_per_dagrun: Option<i32>,
    pub executor: Option<String>,
    pub executor_config: Value,
    /// Seconds.
    pub execution_timeout: Option<f64>,
    /// The task's own, else the DAG's.
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    pub is_setup: bool,
    pub is_teardown: bool,
    pub on_failure_fail_dagrun: bool,
    /// An EmptyOperator.
    pub is_empty: bool,
    /// Inherits from SkipMixin: branches, short circuits.
    pub can_skip_downstream: bool,
    pub is_sensor: bool,
    /// A sensor in reschedule mode.
    pub reschedule: bool,
    pub start_from_trigger: bool,
    pub has_on_execute_callback: bool,
    pub has_on_success_callback: bool,
    pub has_on_failure_callback: bool,
    pub has_on_retry_callback: bool,
    pub has_on_skipped_callback: bool,
    /// `email` names somebody.
    pub has_email: bool,
    pub email_on_failure: bool,
    pub email_on_retry: bool,
    pub has_inlets: bool,
    pub has_outlets: bool,
    /// Mapped, or inside a mapped group.
    pub needs_expansion: bool,
    /// `Some`: the task itself is mapped.
    pub expand_input: Option<ExpandInput>,
    /// The group it stands in; `None` is the root.
    pub group: Option<GroupIndex>,
    pub upstream: Vec<TaskIndex>,
    pub downstream: Vec<TaskIndex>,
}

impl SerializedTask {
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.expand_input.is_some()
    }

    /// Ends without a worker. `airflow: TaskInstance.is_schedulable`
    #[must_use]
    pub fn succeeds_without_worker(&self) -> bool {
        self.is_empty
            && !self.has_on_execute_callback
            && !self.has_on_success_callback
            && !self.has_inlets
            && !self.has_outlets
    }
}

/// `airflow: SerializedTaskGroup`
#[derive(Debug, Clone, PartialEq)]
pub struct TaskGroup {
    /// With all prefixes.
    pub group_id: String,
    pub parent: Option<GroupIndex>,
    /// `Some`: a mapped group.
    pub expand_input: Option<ExpandInput>,
}

/// A timetable as Airflow serialized it: the import path of its class and its own data.
#[derive(Debug, Clone, PartialEq)]
pub struct TimetableData {
    pub class: String,
    pub var: Value,
}

/// `airflow: SerializedParam`
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// `None`: the run must bring a value.
    pub default: Option<Value>,
    /// A JSON schema.
    pub schema: Value,
}

impl SerializedDag {
    /// Reads the `data` column of `serialized_dag` (format version 3).
    pub fn parse(document: &Value) -> Result<Self, Error> {
        read::serialized_dag(document)
    }

    /// Reads the `data_compressed` column: the same document, as zlib of JSON.
    pub fn parse_compressed(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(&read::decompress(bytes)?)
    }

    /// Gives tasks with a weight rule of the user's own their weights, by task id.
    pub fn set_custom_weights(&mut self, weights: &HashMap<String, i32>) {
        for task in &mut self.tasks {
            if matches!(task.weight_rule, WeightRule::Custom(_)) {
                task.custom_weight = weights.get(&task.task_id).copied();
            }
        }
    }

    /// The first task whose weight only Python could tell, and did not.
    #[must_use]
    pub fn task_without_weight(&self) -> Option<&SerializedTask> {
        self.tasks.iter().find(|task| {
            matches!(task.weight_rule, WeightRule::Custom(_)) && task.custom_weight.is_none()
        })
    }

    #[must_use]
    pub fn task_index(&self, task_id: &str) -> Option<TaskIndex> {
        self.task_indexes.get(task_id).copied()
    }

    #[must_use]
    pub fn task(&self, task_id: &str) -> Option<&SerializedTask> {
        self.task_index(task_id).map(|index| &self.tasks[index])
    }

    /// The mapped groups around a task, innermost first. `airflow: iter_mapped_task_groups`
    pub fn mapped_groups(&self, task: &SerializedTask) -> impl Iterator<Item = GroupIndex> {
        self.mapped_groups_from(task.group)
    }

    /// The mapped ones of a group and its parents, innermost first.
    pub fn mapped_groups_from(
        &self,
        group: Option<GroupIndex>,
    ) -> impl Iterator<Item = GroupIndex> {
        std::iter::successors(group, |&group| self.groups[group].parent)
            .filter(|&group| self.groups[group].expand_input.is_some())
    }

    /// Whether any task looks at the run before.
    #[must_use]
    pub fn depends_on_past(&self) -> bool {
        self.tasks.iter().any(|task| task.depends_on_past)
    }
}

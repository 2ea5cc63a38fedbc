//! One task in one run, as the `task_instance` table has it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::TaskInstanceState;

/// What names a task instance to people. `airflow: TaskInstanceKey` without the try.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskInstanceKey {
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    /// -1 when the task is not mapped.
    pub map_index: i32,
}

impl fmt::Display for TaskInstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", self.dag_id, self.task_id, self.run_id)?;
        if self.map_index >= 0 {
            write!(f, " [{}]", self.map_index)?;
        }
        Ok(())
    }
}

/// The columns of `task_instance` that decisions need. The uuid changes with each try, and so fences
/// whoever still holds the old one. `airflow: models.TaskInstance`
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInstance {
    pub id: Uuid,
    pub task_id: String,
    /// -1 when not mapped, or mapped and not yet expanded.
    pub map_index: i32,
    /// `None` is Airflow's *no state*.
    pub state: Option<TaskInstanceState>,
    /// 0 before the first try.
    pub try_number: i32,
    pub max_tries: i32,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    pub pool: String,
    pub pool_slots: i32,
    pub queue: String,
    pub priority_weight: i32,
    pub dag_version_id: Option<Uuid>,
    /// Seconds; set by a retry policy for the coming retry only.
    pub retry_delay_override: Option<f64>,
    pub has_next_method: bool,
}

/// A task instance to be inserted: state none, try 0. `airflow: TaskInstance.insert_mapping`
#[derive(Debug, Clone, PartialEq)]
pub struct NewTaskInstance {
    pub task_id: String,
    pub map_index: i32,
    pub max_tries: i32,
    pub queue: String,
    pub pool: String,
    pub pool_slots: i32,
    pub priority_weight: i32,
    /// Named executor of the task, if it has one.
    pub executor: Option<String>,
    /// As [`crate::executor_config::plain`] has it; null: none.
    pub executor_config: serde_json::Value,
    /// `task_type`, the class name.
    pub operator: String,
    pub custom_operator_name: String,
    pub task_display_name: String,
}

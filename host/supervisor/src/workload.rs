//! What a worker is handed for one try of one task: Airflow's `ExecuteTask`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;

/// Airflow's workload of type `ExecuteTask`, as an executor writes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExecuteTask {
    /// A token of scope `workload`: good for one `run`, which answers with another.
    pub token: String,
    /// The DAG file, relative to the bundle.
    pub dag_rel_path: String,
    /// `{name, version}`, handed on to the task runner.
    pub bundle_info: Value,
    /// Where the UI will look for the log. The log handler knows the place from the task instance; this is for Airflow's own supervisor.
    #[serde(default)]
    pub log_path: Option<String>,
    pub ti: WorkloadTaskInstance,
    #[serde(default)]
    pub sentry_integration: String,
    #[serde(rename = "type")]
    kind: ExecuteTaskTag,
}

/// The task instance of a workload.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkloadTaskInstance {
    /// Changes with each try.
    pub id: String,
    pub dag_id: String,
    pub task_id: String,
    pub run_id: String,
    pub try_number: i32,
    #[serde(default = "not_mapped")]
    pub map_index: i32,
    /// What only the task runner reads.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum ExecuteTaskTag {
    ExecuteTask,
}

impl ExecuteTask {
    /// Reads the JSON text that Airflow's executors hand to `execute_workload`.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(Error::Workload)
    }
}

fn not_mapped() -> i32 {
    -1
}

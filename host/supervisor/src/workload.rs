//! What a worker is handed: Airflow's `ExecuteTask` for one try of one task, or our `RunCallback`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Error;

/// Anything that a worker can be handed.
#[derive(Clone, Debug)]
pub enum Workload {
    Task(Box<ExecuteTask>),
    Callback(RunCallback),
}

impl Workload {
    /// Reads either, by its `type`.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }

        let kind: Kind = serde_json::from_str(text).map_err(Error::Workload)?;
        if kind.kind == "RunCallback" {
            let callback = serde_json::from_str(text).map_err(Error::Workload)?;
            return Ok(Self::Callback(callback));
        }
        ExecuteTask::from_json(text).map(|task| Self::Task(Box::new(task)))
    }
}

/// A callback to be claimed and run; what it is comes with the claim.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RunCallback {
    /// A token of scope `workload` whose subject is the callback.
    pub token: String,
    pub callback_id: String,
}

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

//! Rules on Dags: the trait that `dags create|update|validate` ask before anything is deployed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Blocks the deploy.
    Error,
    Warning,
    Info,
}

/// A rule that a validator knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `DAG001`; stable, used in ignore lists.
    pub code: String,
    pub summary: String,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    /// Somebody only asks; nothing is deployed.
    Check,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationRequest {
    pub operation: Operation,
    pub bundle: String,
}

/// A Dag as a validator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct DagView {
    /// Airflow's serialized form: `{"__version": …, "dag": {…}}`.
    pub serialized: serde_json::Value,
    /// The Python source, when it is at hand.
    pub source: Option<String>,
    /// Path inside the bundle.
    pub file: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub code: String,
    pub severity: Severity,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Line in the Dag's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

#[async_trait]
pub trait DagValidator: Send + Sync {
    async fn rules(&self) -> Result<Vec<Rule>, Error>;

    /// Findings of severity error block the deploy. An `Err` is the validator's own failure: treat it as a block too.
    async fn validate(
        &self,
        request: ValidationRequest,
        dag: DagView,
        previous: Option<DagView>,
    ) -> Result<Vec<Finding>, Error>;
}

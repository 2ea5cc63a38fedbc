//! What a DAG file gets that asks for a Variable or a Connection while it is parsed. The parser has no database and
//! no key: it asks the host, and the host asks whoever was given to it.

use async_trait::async_trait;
use serde_json::Value;

/// Answers questions of DAG files. `Ok(None)`: there is none of that name.
#[async_trait]
pub trait Answers: Send + Sync {
    async fn variable(&self, key: &str) -> Result<Option<String>, String>;

    /// The fields of the Execution API's answer: `conn_id`, `conn_type`, `host`, `login`, …
    async fn connection(&self, conn_id: &str) -> Result<Option<Value>, String>;
}

/// Knows nothing: a DAG file that asks gets an import error that says so. Variables and Connections of the
/// environment (`AIRFLOW_VAR_…`, `AIRFLOW_CONN_…`) are found by Airflow before anybody is asked.
pub struct NoAnswers;

#[async_trait]
impl Answers for NoAnswers {
    async fn variable(&self, key: &str) -> Result<Option<String>, String> {
        Err(format!(
            "the Variable {key:?} was asked for while the file was parsed"
        ))
    }

    async fn connection(&self, conn_id: &str) -> Result<Option<Value>, String> {
        Err(format!(
            "the Connection {conn_id:?} was asked for while the file was parsed"
        ))
    }
}

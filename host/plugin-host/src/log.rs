//! Where task logs go and come from: the trait that workers, the CLI and the UI's routes use.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Error, TaskKey};

/// How a try ended, as far as its log is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutcome {
    Success,
    Failed,
    Skipped,
    UpForRetry,
    Deferred,
    /// The worker went away without a word.
    Lost,
}

/// One line of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// As written, RFC 3339; none for raw text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logger: Option<String>,
    pub event: String,
    /// The other structured fields.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// A piece of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    pub records: Vec<LogRecord>,
    /// Where it was read, for people: paths or URLs.
    pub sources: Vec<String>,
    /// What to hand to the next `read`.
    pub next: Option<String>,
    /// All that is written so far has been read; a running task may still write more after `next`.
    pub at_end: bool,
}

#[async_trait]
pub trait LogHandler: Send + Sync {
    /// Adds lines of a running try and returns the log's new length. `offset` is where they belong: a batch sent twice is
    /// recognised, a gap or other bytes at that place are [`Error::Conflict`]. No lines at offset 0 asks for the length.
    async fn append(&self, task: &TaskKey, offset: u64, lines: Bytes) -> Result<u64, Error>;

    /// The try ended. Completes a line that was cut; an empty log exists afterwards at least.
    async fn finish(&self, task: &TaskKey, outcome: LogOutcome) -> Result<(), Error>;

    /// Reads on after `after` (none: from the start), while the task runs or later.
    async fn read(
        &self,
        task: &TaskKey,
        after: Option<String>,
        max_records: u32,
    ) -> Result<LogPage, Error>;

    /// Removes the logs of a run, or of all runs of a Dag; the number of logs removed.
    async fn purge(&self, dag_id: &str, run_id: Option<&str>) -> Result<u64, Error>;
}

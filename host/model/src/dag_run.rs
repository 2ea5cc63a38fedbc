//! One run of a DAG, as the `dag_run` table has it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{DagRunState, DagRunType};

/// The columns of `dag_run` that decisions need. `airflow: models.DagRun`
#[derive(Debug, Clone, PartialEq)]
pub struct DagRun {
    /// Primary key.
    pub id: i32,
    pub dag_id: String,
    pub run_id: String,
    pub state: DagRunState,
    pub run_type: DagRunType,
    /// `None` for manual runs without a date and for asset-triggered runs.
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub queued_at: Option<DateTime<Utc>>,
    pub start_date: Option<DateTime<Utc>>,
    pub end_date: Option<DateTime<Utc>>,
    pub last_scheduling_decision: Option<DateTime<Utc>>,
    pub clear_number: i32,
    pub backfill_id: Option<i32>,
    pub bundle_version: Option<String>,
    pub created_dag_version_id: Option<Uuid>,
    /// W3C trace context of the run; task instances inherit its trace id.
    pub context_carrier: serde_json::Value,
}

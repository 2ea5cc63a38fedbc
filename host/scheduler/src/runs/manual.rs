//! Runs that a person, a program or another DAG asks for.

use chrono::{DateTime, Utc};
use model::{DagRunTriggeredBy, DagRunType, SerializedDag};
use serde_json::Value;

use crate::Error;
use crate::plan::NewDagRun;

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ManualRun {
    /// `None`: made from `run_after`.
    pub run_id: Option<String>,
    pub logical_date: Option<DateTime<Utc>>,
    /// `None`: inferred by the timetable when there is a logical date.
    pub data_interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// `None`: now.
    pub run_after: Option<DateTime<Utc>>,
    /// An object, or null for none.
    pub conf: Value,
    pub run_type: DagRunType,
    pub triggered_by: DagRunTriggeredBy,
    pub triggering_user_name: Option<String>,
}

/// `airflow: api.common.trigger_dag._trigger_dag, SerializedDAG.create_dagrun`
pub fn manual(
    dag: &SerializedDag,
    manual: ManualRun,
    now: DateTime<Utc>,
) -> Result<NewDagRun, Error> {
    let run_after = manual.run_after.unwrap_or(now);
    Ok(NewDagRun {
        dag_id: dag.dag_id.clone(),
        run_id: manual.run_id.unwrap_or_default(),
        run_type: manual.run_type,
        triggered_by: manual.triggered_by,
        triggering_user_name: manual.triggering_user_name,
        logical_date: manual.logical_date,
        data_interval_start: None,
        data_interval_end: None,
        run_after,
        conf: manual.conf,
        task_instances: Vec::new(),
    })
}

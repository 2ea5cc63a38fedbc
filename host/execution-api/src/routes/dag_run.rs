//! A run as workers read it. Their model forbids unknown fields: a field that a version does not have must be left out.

use metadata::execution::dag_runs::{ConsumedEvent, DagRunRow};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::dates;
use crate::problem::Problem;
use crate::version::Version;

/// `airflow: datamodels.taskinstance.DagRun`
#[derive(Serialize)]
pub(crate) struct DagRunAnswer {
    dag_id: String,
    run_id: String,
    logical_date: Value,
    data_interval_start: Value,
    data_interval_end: Value,
    run_after: Value,
    start_date: Value,
    end_date: Value,
    clear_number: i32,
    run_type: String,
    state: Option<String>,
    conf: Option<Box<RawValue>>,
    triggering_user_name: Option<String>,
    consumed_asset_events: Vec<Value>,
    partition_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_date: Option<Value>,
    /// Airflow fills it in only where the note happens to be loaded, which is nowhere.
    note: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    team_name: Option<Value>,
}

impl DagRunAnswer {
    /// # Errors
    /// When a JSON column is none.
    pub(crate) fn new(
        run: DagRunRow,
        consumed: &[ConsumedEvent],
        version: Version,
    ) -> Result<Self, Problem> {
        let june = version.has_june_fields();
        Ok(Self {
            logical_date: dates::json(run.logical_date),
            data_interval_start: dates::json(run.data_interval_start),
            data_interval_end: dates::json(run.data_interval_end),
            run_after: dates::json(Some(run.run_after)),
            start_date: dates::json(run.start_date),
            end_date: dates::json(run.end_date),
            clear_number: run.clear_number,
            run_type: run.run_type,
            state: run.state,
            conf: run.conf.map(raw).transpose()?,
            triggering_user_name: run.triggering_user_name,
            consumed_asset_events: consumed
                .iter()
                .map(|event| consumed_event(event, version))
                .collect::<Result<_, _>>()?,
            partition_key: run.partition_key,
            partition_date: june.then(|| dates::json(run.partition_date)),
            note: (),
            team_name: june.then_some(Value::Null),
            dag_id: run.dag_id,
            run_id: run.run_id,
        })
    }
}

fn consumed_event(event: &ConsumedEvent, version: Version) -> Result<Value, Problem> {
    let aliases: Vec<Value> = event
        .source_aliases
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    let mut answer = json!({
        "asset": {"name": event.name, "uri": event.uri, "extra": parsed(&event.asset_extra)?},
        "extra": parsed(&event.extra)?,
        "source_task_id": event.source_task_id,
        "source_dag_id": event.source_dag_id,
        "source_run_id": event.source_run_id,
        "source_map_index": event.source_map_index,
        "source_aliases": aliases,
        "timestamp": dates::text(event.timestamp),
    });
    if version.has_june_fields() {
        answer["partition_key"] = json!(event.partition_key);
    }
    Ok(answer)
}

/// JSON text out of a column, to be passed on as it is.
pub(crate) fn raw(text: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(text).map_err(|_| Problem::bug("a JSON column holds no JSON"))
}

/// JSON text out of a column.
pub(crate) fn parsed(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text).map_err(|_| Problem::bug("a JSON column holds no JSON"))
}

//! Runs that a person, a program or another DAG asks for.

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Timelike, Utc};
use model::{DagRunTriggeredBy, DagRunType, Param, SerializedDag};
use serde_json::Value;

use super::due::{inferred, names_at_random};
use super::partition_keys::partition_date;
use super::{MappedLengths, task_instances};
use crate::Error;
use crate::plan::NewDagRun;

/// The column has that many characters.
const MAX_RUN_ID: usize = 250;

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
    /// The partition that the run is about.
    pub partition_key: Option<String>,
}

/// `suffix` makes an id unique that the timetable does not make of the date alone.
/// `airflow: api.common.trigger_dag._trigger_dag, SerializedDAG.create_dagrun`
pub fn manual(
    dag: &SerializedDag,
    manual: ManualRun,
    suffix: &str,
    now: DateTime<Utc>,
) -> Result<NewDagRun, Error> {
    check_run_type(dag, manual.run_type)?;
    let run_after = manual.run_after.unwrap_or(now);
    let interval = match (manual.logical_date, manual.data_interval) {
        (None, _) => None,
        (Some(_), Some(interval)) => Some(interval),
        // The REST API infers it from the logical date, everybody else from when the run is due.
        (Some(logical_date), None) => Some(match manual.triggered_by {
            DagRunTriggeredBy::RestApi | DagRunTriggeredBy::Ui => inferred(dag, logical_date)?,
            DagRunTriggeredBy::Cli
            | DagRunTriggeredBy::Operator
            | DagRunTriggeredBy::Test
            | DagRunTriggeredBy::Timetable
            | DagRunTriggeredBy::Asset
            | DagRunTriggeredBy::Backfill => inferred(dag, run_after)?,
        }),
    };
    let run_id = match manual.run_id {
        Some(run_id) => run_id,
        None => {
            let run_id = format!("{}__{}", manual.run_type, isoformat(run_after));
            match names_at_random(dag) {
                true => format!("{run_id}__{suffix}"),
                false => run_id,
            }
        }
    };
    check_run_id(&run_id, manual.run_type)?;
    let partition_date = partition_date(dag, manual.partition_key.as_deref())?;
    let conf = match manual.conf {
        Value::Null => Value::Object(serde_json::Map::new()),
        conf @ Value::Object(_) => conf,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(Error::ConfNotObject {
                dag_id: dag.dag_id.clone(),
            });
        }
    };
    check_params(dag, &conf)?;
    Ok(NewDagRun {
        dag_id: dag.dag_id.clone(),
        run_id,
        run_type: manual.run_type,
        triggered_by: manual.triggered_by,
        triggering_user_name: manual.triggering_user_name,
        logical_date: manual.logical_date,
        data_interval_start: interval.map(|(start, _)| start),
        data_interval_end: interval.map(|(_, end)| end),
        run_after,
        partition_key: manual.partition_key,
        partition_date,
        conf,
        task_instances: task_instances(
            dag,
            manual.logical_date,
            manual.run_type,
            &MappedLengths::new(),
        ),
    })
}

pub(super) fn check_run_type(dag: &SerializedDag, run_type: DagRunType) -> Result<(), Error> {
    match &dag.allowed_run_types {
        Some(allowed) if !allowed.contains(&run_type) => {
            let names: Vec<&str> = allowed.iter().map(|allowed| allowed.as_str()).collect();
            Err(Error::RunTypeNotAllowed {
                dag_id: dag.dag_id.clone(),
                run_type: run_type.to_string(),
                allowed: names.join(", "),
            })
        }
        Some(_) | None => Ok(()),
    }
}

/// Airflow's default `allowed_run_id_pattern`, without the newline that Python's `$` lets through.
pub(super) fn check_run_id(run_id: &str, run_type: DagRunType) -> Result<(), Error> {
    let problem = |problem: String| Error::RunId {
        run_id: run_id.to_owned(),
        problem,
    };
    if run_id.is_empty() {
        return Err(problem("it is empty".to_owned()));
    }
    if run_id.chars().count() > MAX_RUN_ID {
        return Err(problem(format!(
            "it is longer than {MAX_RUN_ID} characters"
        )));
    }
    if run_id.contains("..") {
        return Err(problem("it contains two dots in a row".to_owned()));
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.~:+-".contains(letter);
    if let Some(letter) = run_id.chars().find(|&letter| !allowed(letter)) {
        return Err(problem(format!("it contains {letter:?}")));
    }
    if run_type == DagRunType::Manual {
        let reserved = DagRunType::ALL
            .iter()
            .find(|kind| run_id.starts_with(&format!("{kind}__")))
            .filter(|kind| **kind != DagRunType::Manual);
        if let Some(kind) = reserved {
            return Err(problem(format!("ids that begin so are for {kind} runs")));
        }
    }
    Ok(())
}

/// The DAG's params with the conf over them must satisfy their schemas.
/// `airflow: SerializedParamsDict.deep_merge, validate`
pub(super) fn check_params(dag: &SerializedDag, conf: &Value) -> Result<(), Error> {
    for (name, param) in &dag.params {
        let value = conf.get(name).or(param.default.as_ref());
        check_param(param, value).map_err(|problem| Error::Param {
            dag_id: dag.dag_id.clone(),
            param: name.clone(),
            problem,
        })?;
    }
    Ok(())
}

fn check_param(param: &Param, value: Option<&Value>) -> Result<(), String> {
    let Some(value) = value else {
        return Err("it has no value and no default; give one in conf".to_owned());
    };
    // Formats as Python's jsonschema checks them in an Airflow installation: some loosely, some not at all.
    let mut options = jsonschema::options()
        .should_validate_formats(true)
        .with_format("date", |text: &str| {
            text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
        })
        .with_format("time", |text: &str| {
            NaiveTime::parse_from_str(text, "%H:%M:%S").is_ok()
        })
        .with_format("email", |text: &str| text.contains('@'))
        .with_format("idn-email", |text: &str| text.contains('@'));
    for unchecked in [
        "date-time",
        "hostname",
        "uri",
        "uri-reference",
        "iri",
        "iri-reference",
        "uri-template",
        "json-pointer",
        "relative-json-pointer",
    ] {
        options = options.with_format(unchecked, |_: &str| true);
    }
    let schema = options
        .build(&param.schema)
        .map_err(|error| format!("its schema is invalid: {error}"))?;
    schema.validate(value).map_err(|error| error.to_string())
}

/// `datetime.isoformat()` of Python.
pub(crate) fn isoformat(date: DateTime<Utc>) -> String {
    let format = if date.nanosecond() / 1000 == 0 {
        SecondsFormat::Secs
    } else {
        SecondsFormat::Micros
    };
    date.to_rfc3339_opts(format, false)
}

//! From Airflow's serialized JSON, format version 3, to a [`SerializedDag`].
//!
//! A field that a task lacks comes from `partial_kwargs` (mapped tasks), else from `client_defaults.tasks`,
//! else from the defaults of Airflow's `schema.json`, which stand here.

use std::collections::HashMap;
use std::io::Read;

use serde_json::{Map, Value};

use super::document::Fields;
use super::{
    GroupIndex, Param, SerializedDag, SerializedTask, TaskGroup, TaskIndex, TimetableData,
};
use crate::executor_config;
use crate::expand_input::decoded;
use crate::{DagRunType, Error, ExpandInput, TriggerRule, WeightRule};

/// A zlib bomb must not take the host down; Airflow's largest example DAG has 24 kB.
const MAX_DOCUMENT_BYTES: u64 = 256 << 20;

pub(super) fn decompress(bytes: &[u8]) -> Result<Value, Error> {
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(bytes)
        .take(MAX_DOCUMENT_BYTES)
        .read_to_end(&mut text)
        .map_err(Error::Decompress)?;
    serde_json::from_slice(&text).map_err(Error::Json)
}

pub(super) fn serialized_dag(document: &Value) -> Result<SerializedDag, Error> {
    match document.get("__version") {
        Some(version) if version.as_i64() == Some(3) => {}
        other => {
            return Err(Error::UnknownVersion {
                found: other.map_or_else(|| "absent".to_owned(), Value::to_string),
            });
        }
    }
    let dag = document.get("dag").and_then(Value::as_object);
    let dag_id = dag
        .and_then(|dag| dag.get("dag_id"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let dag = dag.ok_or_else(|| Error::Malformed {
        dag_id: dag_id.to_owned(),
        at: "dag".to_owned(),
        expected: "an object",
    })?;
    let client_defaults = document
        .get("client_defaults")
        .and_then(|defaults| defaults.get("tasks"))
        .and_then(Value::as_object);

    let fields = Fields {
        dag_id,
        at: String::new(),
        layers: vec![dag],
    };
    let mut read = SerializedDag {
        dag_id: fields.required_text("dag_id")?.to_owned(),
        dag_display_name: fields.text("dag_display_name")?.map(str::to_owned),
        fileloc: fields.text("fileloc")?.map(str::to_owned),
        relative_fileloc: fields.text("relative_fileloc")?.map(str::to_owned),
        start_date: fields.date("start_date")?,
        end_date: fields.date("end_date")?,
        catchup: fields.flag("catchup")?,
        timetable: timetable(&fields)?,
        max_active_tasks: fields.integer("max_active_tasks")?.unwrap_or(16),
        max_active_runs: fields.integer("max_active_runs")?.unwrap_or(16),
        max_consecutive_failed_dag_runs: fields
            .integer("max_consecutive_failed_dag_runs")?
            .unwrap_or(0),
        dagrun_timeout: fields.delta("dagrun_timeout")?,
        fail_fast: fields.flag("fail_fast")?,
        disable_bundle_versioning: fields.flag("disable_bundle_versioning")?,
        // Airflow looks for the key alone, whatever its value.
        has_on_success_callback: dag.contains_key("has_on_success_callback"),
        has_on_failure_callback: dag.contains_key("has_on_failure_callback"),
        allowed_run_types: allowed_run_types(&fields)?,
        deadline: deadline(&fields)?,
        params: params(&fields)?,
        tasks: Vec::new(),
        groups: Vec::new(),
        topological_order: Vec::new(),
        task_indexes: HashMap::new(),
    };

    let mut downstream_ids = Vec::new();
    for (position, encoded) in fields.list("tasks")?.iter().enumerate() {
        let (_, encoded) = decoded(encoded);
        let Some(encoded) = encoded.as_object() else {
            return Err(fields.malformed(&format!("tasks[{position}]"), "an object"));
        };
        let (task, downstream) = task(&read, position, encoded, client_defaults)?;
        if read
            .task_indexes
            .insert(task.task_id.clone(), position)
            .is_some()
        {
            return Err(Error::DuplicateTask {
                dag_id: read.dag_id,
                task_id: task.task_id,
            });
        }
        read.tasks.push(task);
        downstream_ids.push(downstream);
    }
    link(&mut read, &downstream_ids)?;
    if let Some(root) = fields.object("task_group")? {
        group(&mut read, root, None)?;
    }
    inherit_expansion(&mut read);
    check_references(&read)?;
    read.topological_order = topological_order(&read)?;
    Ok(read)
}

fn timetable(fields: &Fields<'_>) -> Result<TimetableData, Error> {
    // Not through `Fields::get`, which would take the class off.
    let timetable = fields.layers[0]
        .get("timetable")
        .ok_or_else(|| fields.malformed("timetable", "an object"))?;
    let class = timetable.get("__type").and_then(Value::as_str);
    Ok(TimetableData {
        class: class
            .ok_or_else(|| fields.malformed("timetable.__type", "a string"))?
            .to_owned(),
        var: timetable.get("__var").cloned().unwrap_or(Value::Null),
    })
}

fn allowed_run_types(fields: &Fields<'_>) -> Result<Option<Vec<DagRunType>>, Error> {
    let names = fields.list("allowed_run_types")?;
    let types: Result<Vec<DagRunType>, Error> = names
        .iter()
        .map(|name| {
            name.as_str()
                .and_then(|name| name.parse().ok())
                .ok_or_else(|| fields.malformed("allowed_run_types", "a list of run types"))
        })
        .collect();
    Ok((!names.is_empty()).then_some(types?))
}

fn deadline(fields: &Fields<'_>) -> Result<Vec<String>, Error> {
    let entries = match fields.get("deadline") {
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    Ok(entries
        .iter()
        .map(|entry| {
            entry
                .as_str()
                .map_or_else(|| entry.to_string(), str::to_owned)
        })
        .collect())
}

/// `[[name, {"__class", "default", "schema", …}], …]`. `airflow: _deserialize_params_dict`
fn params(fields: &Fields<'_>) -> Result<Vec<(String, Param)>, Error> {
    let expected = "a list of [name, param] pairs";
    let mut params = Vec::new();
    for pair in fields.list("params")? {
        let (Some(name), Some(param)) = (pair.get(0).and_then(Value::as_str), pair.get(1)) else {
            return Err(fields.malformed("params", expected));
        };
        let read = if param.get("__class").is_some() {
            Param {
                default: param.get("default").and_then(plain_default),
                schema: param
                    .get("schema")
                    .map(|schema| decoded(schema).1.clone())
                    .unwrap_or_else(|| Value::Object(Map::new())),
            }
        } else {
            Param {
                default: Some(param.clone()),
                schema: Value::Object(Map::new()),
            }
        };
        params.push((name.to_owned(), read));
    }
    Ok(params)
}

/// `{"__type": "arg_not_set"}` and the like stand for "no value".
fn plain_default(value: &Value) -> Option<Value> {
    match value.get("__type").and_then(Value::as_str) {
        Some("arg_not_set") => None,
        Some(_) => Some(unwrapped(value)),
        None => Some(unwrapped(value)),
    }
}

/// Takes Airflow's wrapping off at every depth.
fn unwrapped(value: &Value) -> Value {
    match decoded(value).1 {
        Value::Array(items) => items.iter().map(unwrapped).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), unwrapped(value)))
            .collect(),
        plain => plain.clone(),
    }
}

fn task(
    dag: &SerializedDag,
    position: usize,
    encoded: &Map<String, Value>,
    client_defaults: Option<&Map<String, Value>>,
) -> Result<(SerializedTask, Vec<String>), Error> {
    let is_mapped = encoded.get("_is_mapped") == Some(&Value::Bool(true));
    let partial_kwargs = encoded
        .get("partial_kwargs")
        .filter(|_| is_mapped)
        .and_then(|partial| decoded(partial).1.as_object());
    let fields = Fields {
        dag_id: &dag.dag_id,
        at: format!("tasks[{position}]"),
        layers: partial_kwargs
            .into_iter()
            .chain([encoded])
            .chain(client_defaults)
            .collect(),
    };
    // These belong to the document alone: a keyword argument of the same name means something else.
    let own = Fields {
        dag_id: &dag.dag_id,
        at: fields.at.clone(),
        layers: vec![encoded],
    };

    let task_id = own.required_text("task_id")?.to_owned();
    let task_type = own.text("task_type")?.unwrap_or("BaseOperator").to_owned();
    let display_name = match fields.text("task_display_name")? {
        Some(name) => Some(name),
        None => own.text("_task_display_name")?,
    };
    let name = fields.text("trigger_rule")?.unwrap_or("all_success");
    let trigger_rule: TriggerRule = name.parse().map_err(|_| Error::UnknownTriggerRule {
        dag_id: dag.dag_id.clone(),
        task_id: task_id.clone(),
        name: name.to_owned(),
    })?;
    let wait_for_downstream = fields.flag("wait_for_downstream")?;
    let callback = |kind: &str| -> Result<bool, Error> {
        let now = fields.flag(&format!("has_on_{kind}_callback"))?;
        Ok(now || own.get(&format!("on_{kind}_callback")).is_some_and(truthy))
    };
    let expand_input = if is_mapped {
        Some(expand_input(&own)?)
    } else {
        None
    };
    let task = SerializedTask {
        operator_name: own.text("_operator_name")?.unwrap_or(&task_type).to_owned(),
        task_display_name: display_name.unwrap_or(&task_id).to_owned(),
        trigger_rule,
        retries: fields.integer("retries")?.unwrap_or(0),
        retry_delay: fields.number("retry_delay")?.unwrap_or(300.0),
        retry_exponential_backoff: match fields.get("retry_exponential_backoff") {
            Some(Value::Bool(grows)) => {
                if *grows {
                    2.0
                } else {
                    0.0
                }
            }
            _ => fields.number("retry_exponential_backoff")?.unwrap_or(0.0),
        },
        max_retry_delay: fields.number("max_retry_delay")?,
        has_retry_policy: fields.flag("has_retry_policy")?,
        depends_on_past: fields.flag("depends_on_past")? || wait_for_downstream,
        wait_for_downstream,
        ignore_first_depends_on_past: fields.flag("ignore_first_depends_on_past")?,
        pool: fields.text("pool")?.unwrap_or("default_pool").to_owned(),
        pool_slots: fields.integer("pool_slots")?.unwrap_or(1),
        queue: fields.text("queue")?.unwrap_or("default").to_owned(),
        priority_weight: fields.integer("priority_weight")?.unwrap_or(1),
        weight_rule: WeightRule::from_name(fields.text("weight_rule")?.unwrap_or("downstream")),
        custom_weight: None,
        max_active_tis_per_dag: fields.integer("max_active_tis_per_dag")?,
        max_active_tis_per_dagrun: fields.integer("max_active_tis_per_dagrun")?,
        executor: fields.text("executor")?.map(str::to_owned),
        executor_config: fields
            .get("executor_config")
            .map_or(Value::Null, executor_config::plain),
        execution_timeout: fields.number("execution_timeout")?,
        start_date: own.date("start_date")?.or(dag.start_date),
        end_date: own.date("end_date")?.or(dag.end_date),
        is_setup: fields.flag("is_setup")?,
        is_teardown: fields.flag("is_teardown")?,
        on_failure_fail_dagrun: fields.flag("on_failure_fail_dagrun")?
            || own.flag("_on_failure_fail_dagrun")?,
        is_empty: own.flag("_is_empty")?,
        can_skip_downstream: own.flag("_can_skip_downstream")?,
        is_sensor: own.flag("_is_sensor")?,
        reschedule: own.get("reschedule").is_some_and(truthy),
        start_from_trigger: own.flag("start_from_trigger")?,
        has_on_execute_callback: callback("execute")?,
        has_on_success_callback: callback("success")?,
        has_on_failure_callback: callback("failure")?,
        has_on_retry_callback: callback("retry")?,
        has_on_skipped_callback: callback("skipped")?,
        has_email: fields.get("email").is_some_and(truthy),
        email_on_failure: fields.get("email_on_failure").is_none_or(truthy),
        email_on_retry: fields.get("email_on_retry").is_none_or(truthy),
        has_inlets: fields.get("inlets").is_some_and(truthy),
        has_outlets: fields.get("outlets").is_some_and(truthy),
        needs_expansion: is_mapped || own.flag("_needs_expansion")?,
        expand_input,
        group: None,
        upstream: Vec::new(),
        downstream: Vec::new(),
        task_id,
        task_type,
    };
    let downstream = own
        .list("downstream_task_ids")?
        .iter()
        .map(|id| id.as_str().map(str::to_owned))
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| own.malformed("downstream_task_ids", "a list of strings"))?;
    Ok((task, downstream))
}

/// Python's truth of a JSON value.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn expand_input(own: &Fields<'_>) -> Result<ExpandInput, Error> {
    let attribute = own.text("_expand_input_attr")?.unwrap_or("expand_input");
    let value = own
        .get(attribute)
        .ok_or_else(|| own.malformed(attribute, "an expand input"))?;
    ExpandInput::read(value).map_err(|expected| own.malformed(attribute, expected))
}

/// Turns ids into edges in both directions, each once.
fn link(dag: &mut SerializedDag, downstream_ids: &[Vec<String>]) -> Result<(), Error> {
    for (from, ids) in downstream_ids.iter().enumerate() {
        let mut downstream: Vec<TaskIndex> = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(to) = dag.task_index(id) else {
                return Err(Error::DanglingTask {
                    dag_id: dag.dag_id.clone(),
                    from: dag.tasks[from].task_id.clone(),
                    task_id: id.clone(),
                });
            };
            downstream.push(to);
        }
        downstream.sort_unstable();
        downstream.dedup();
        for &to in &downstream {
            dag.tasks[to].upstream.push(from);
        }
        dag.tasks[from].downstream = downstream;
    }
    Ok(())
}

fn group(
    dag: &mut SerializedDag,
    encoded: &Map<String, Value>,
    this: Option<GroupIndex>,
) -> Result<(), Error> {
    // Not recursive: a hostile document may nest deeper than the stack.
    let mut open = vec![(encoded, this)];
    while let Some((encoded, this)) = open.pop() {
        let children = encoded
            .get("children")
            .and_then(|children| decoded(children).1.as_object());
        for (id, child) in children.into_iter().flatten() {
            match (child.get(0).and_then(Value::as_str), child.get(1)) {
                (Some("operator"), Some(Value::String(task_id))) => {
                    let Some(task) = dag.task_index(task_id) else {
                        return Err(Error::DanglingTask {
                            dag_id: dag.dag_id.clone(),
                            from: "task_group".to_owned(),
                            task_id: task_id.clone(),
                        });
                    };
                    dag.tasks[task].group = this;
                }
                (Some("taskgroup"), Some(Value::Object(inner))) => {
                    let expand_input = inner
                        .get("expand_input")
                        .filter(|_| inner.get("is_mapped").is_some_and(truthy))
                        .map(|value| ExpandInput::read(decoded(value).1))
                        .transpose()
                        .map_err(|expected| Error::Malformed {
                            dag_id: dag.dag_id.clone(),
                            at: format!("task_group {id}"),
                            expected,
                        })?;
                    dag.groups.push(TaskGroup {
                        group_id: id.clone(),
                        parent: this,
                        expand_input,
                    });
                    open.push((inner, Some(dag.groups.len() - 1)));
                }
                _ => {
                    return Err(Error::Malformed {
                        dag_id: dag.dag_id.clone(),
                        at: format!("task_group child {id}"),
                        expected: "[\"operator\", task id] or [\"taskgroup\", group]",
                    });
                }
            }
        }
    }
    Ok(())
}

/// A task in a mapped group needs expansion, whether the document says so or leaves it to the default.
fn inherit_expansion(dag: &mut SerializedDag) {
    for task in 0..dag.tasks.len() {
        let mapped = dag.mapped_groups(&dag.tasks[task]).next().is_some();
        dag.tasks[task].needs_expansion |= mapped;
    }
}

fn check_references(dag: &SerializedDag) -> Result<(), Error> {
    let tasks = dag
        .tasks
        .iter()
        .map(|task| (&task.task_id, task.expand_input.as_ref()));
    let groups = dag
        .groups
        .iter()
        .map(|group| (&group.group_id, group.expand_input.as_ref()));
    for (from, input) in tasks.chain(groups) {
        for task_id in input.into_iter().flat_map(ExpandInput::references) {
            if dag.task_index(task_id).is_none() {
                return Err(Error::DanglingTask {
                    dag_id: dag.dag_id.clone(),
                    from: from.clone(),
                    task_id: task_id.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn topological_order(dag: &SerializedDag) -> Result<Vec<TaskIndex>, Error> {
    let mut missing: Vec<usize> = dag.tasks.iter().map(|task| task.upstream.len()).collect();
    let mut order: Vec<TaskIndex> = (0..dag.tasks.len())
        .filter(|&task| missing[task] == 0)
        .collect();
    let mut next = 0;
    while let Some(&task) = order.get(next) {
        next += 1;
        for &downstream in &dag.tasks[task].downstream {
            missing[downstream] -= 1;
            if missing[downstream] == 0 {
                order.push(downstream);
            }
        }
    }
    match missing.iter().position(|&count| count > 0) {
        None => Ok(order),
        Some(task) => Err(Error::Cycle {
            dag_id: dag.dag_id.clone(),
            task_id: dag.tasks[task].task_id.clone(),
        }),
    }
}

//! Where a value's file stands. Ids become parts of a path through the host's one encoder.

use modalflow_plugin::TaskKey;
use modalflow_plugin::object_store;
use modalflow_plugin::xcom_backend::xcom::Coordinate;

pub(crate) fn part(id: &str) -> String {
    object_store::part(id)
}

pub(crate) fn task_path(task: &TaskKey) -> String {
    let path = format!(
        "{}/{}/{}",
        part(&task.dag_id),
        part(&task.run_id),
        part(&task.task_id)
    );
    match task.map_index {
        0.. => format!("{path}/map_index={}", task.map_index),
        _ => path,
    }
}

pub(crate) fn path(at: &Coordinate) -> String {
    let key = part(&at.key);
    // A key must not look like the directory of a mapped instance. The encoder itself never writes `%3D`.
    let key = match key.strip_prefix("map_index=") {
        Some(rest) => format!("map_index%3D{rest}"),
        None => key,
    };
    format!("{}/{key}", task_path(&at.task))
}

/// A value as people know it.
pub(crate) fn name(at: &Coordinate) -> String {
    let task = &at.task;
    let mapped = match task.map_index {
        0.. => format!("[{}]", task.map_index),
        _ => String::new(),
    };
    format!(
        "XCom {:?} of task {:?}{mapped} in run {:?} of Dag {:?}",
        at.key, task.task_id, task.run_id, task.dag_id
    )
}

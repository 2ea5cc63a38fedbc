//! The task instances of a new run.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::{DagRunType, NewTaskInstance, SerializedDag, SerializedTask};

use crate::mapping::{self, Count, Lengths};
use crate::weights::priority_weights;

/// Lengths of XComs known when the run is made, by task id: none for a run that is new.
pub type MappedLengths = HashMap<String, i64>;

impl Lengths for MappedLengths {
    fn length(&self, task_id: &str) -> Option<i64> {
        self.get(task_id).copied()
    }
}

/// `airflow: DagRun.verify_integrity` for a run without task instances
#[must_use]
pub fn task_instances(
    dag: &SerializedDag,
    logical_date: Option<DateTime<Utc>>,
    run_type: DagRunType,
    mapped_lengths: &MappedLengths,
) -> Vec<NewTaskInstance> {
    let weights = priority_weights(dag);
    let mut made = Vec::with_capacity(dag.tasks.len());
    for (task, &weight) in dag.tasks.iter().zip(&weights) {
        if !is_active(task, logical_date, run_type) {
            continue;
        }
        match mapping::count(dag, task, mapped_lengths) {
            Count::Known(count) if count > 0 => {
                let indexes = 0..i32::try_from(count).unwrap_or(i32::MAX);
                made.extend(indexes.map(|index| new_task_instance(task, index, weight)));
            }
            Count::Known(_) | Count::Unknown | Count::NotMapped => {
                made.push(new_task_instance(task, -1, weight));
            }
        }
    }
    made
}

/// Whether a run of this date has the task at all.
pub(crate) fn is_active(
    task: &SerializedTask,
    logical_date: Option<DateTime<Utc>>,
    run_type: DagRunType,
) -> bool {
    let Some(date) = logical_date else {
        return true;
    };
    run_type == DagRunType::Backfill
        || (task.start_date.is_none_or(|start| start <= date)
            && task.end_date.is_none_or(|end| date <= end))
}

/// `airflow: TaskInstance.insert_mapping`
pub(crate) fn new_task_instance(
    task: &SerializedTask,
    map_index: i32,
    priority_weight: i32,
) -> NewTaskInstance {
    NewTaskInstance {
        task_id: task.task_id.clone(),
        map_index,
        max_tries: task.retries,
        queue: task.queue.clone(),
        pool: task.pool.clone(),
        pool_slots: task.pool_slots,
        priority_weight,
        executor: task.executor.clone(),
        executor_config: task.executor_config.clone(),
        operator: task.task_type.clone(),
        custom_operator_name: task.operator_name.clone(),
        task_display_name: task.task_display_name.clone(),
    }
}

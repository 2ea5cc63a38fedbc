//! What a DAG asks for that this scheduler can't decide yet. Such a DAG gets a visible error and no runs.

use model::{SerializedDag, WeightRule};

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    pub what: String,
    pub hint: &'static str,
}

/// Empty: the DAG can be scheduled exactly as Airflow would.
#[must_use]
pub fn check(dag: &SerializedDag) -> Vec<Unsupported> {
    let mut missing = Vec::new();
    for task in &dag.tasks {
        if let WeightRule::Custom(class) = &task.weight_rule {
            missing.push(Unsupported {
                what: format!("the weight rule {class} of task {:?}", task.task_id),
                hint: "use downstream, upstream or absolute; a custom strategy is Python code",
            });
        }
    }
    missing
}

//! What can be wrong with a stored DAG. Who reads one says which it is.

/// Why a serialized DAG can't be read. The DAG is to be shown with this as its error; no run of it may be
/// made or moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "its format version is {found}, this host reads version 3\n\
         hint: parse the DAG file again with Airflow 3.3 (`dags update`)"
    )]
    UnknownVersion { found: String },
    #[error("{at} is not {expected}")]
    Malformed {
        dag_id: String,
        /// Where in the document, as a path: `tasks[3].retries`.
        at: String,
        expected: &'static str,
    },
    #[error(
        "task {task_id:?} has the unknown trigger rule {name:?}\n\
         hint: the rules of Airflow 3.3 are all_success, all_failed, all_done, all_done_min_one_success, \
         all_done_setup_success, one_success, one_failed, one_done, none_failed, \
         none_failed_min_one_success, none_skipped, all_skipped and always"
    )]
    UnknownTriggerRule {
        dag_id: String,
        task_id: String,
        name: String,
    },
    #[error("{from:?} refers to task {task_id:?}, which the DAG does not have")]
    DanglingTask {
        dag_id: String,
        from: String,
        task_id: String,
    },
    #[error("task {task_id:?} appears twice")]
    DuplicateTask { dag_id: String, task_id: String },
    #[error("its dependencies form a cycle through task {task_id:?}")]
    Cycle { dag_id: String, task_id: String },
    #[error("data_compressed cannot be unpacked")]
    Decompress(#[source] std::io::Error),
    #[error("data_compressed is not JSON")]
    Json(#[source] serde_json::Error),
}

//! Why a decision can't be made.

/// Each variant is about one DAG or one request; every other DAG goes on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "schedule DAG {dag_id:?}: its timetable {class} is not one that this host can compute\n\
         hint: use a timetable that Airflow ships; custom timetables are Python code of the DAG's author"
    )]
    UnknownTimetable { dag_id: String, class: String },
    #[error("schedule DAG {dag_id:?}: its timetable {class} is malformed: {problem}")]
    MalformedTimetable {
        dag_id: String,
        class: String,
        problem: String,
    },
    #[error("schedule DAG {dag_id:?}: {expression:?} is not a cron expression: {problem}")]
    Cron {
        dag_id: String,
        expression: String,
        problem: String,
    },
    #[error("schedule DAG {dag_id:?}: {problem}")]
    NoNextRun { dag_id: String, problem: String },
    #[error(
        "create a run of DAG {dag_id:?}: `next_dagrun_create_after` is set without `next_dagrun`"
    )]
    IncompleteNextRun { dag_id: String },
    #[error(
        "create a run of DAG {dag_id:?}: it does not allow {run_type} runs\n\
         hint: its `allowed_run_types` are {allowed}"
    )]
    RunTypeNotAllowed {
        dag_id: String,
        run_type: String,
        allowed: String,
    },
    #[error(
        "create run {run_id:?}: {problem}\n\
         hint: a run id consists of letters, digits and the characters _ . ~ : + - (no two dots in a row)"
    )]
    RunId { run_id: String, problem: String },
    #[error("create a run of DAG {dag_id:?}: conf is not a JSON object")]
    ConfNotObject { dag_id: String },
    #[error("create a run of DAG {dag_id:?}: invalid input for param {param}: {problem}")]
    Param {
        dag_id: String,
        param: String,
        problem: String,
    },
    // Airflow's words: they are an answer of the Execution API.
    #[error("Dag '{dag_id}' is not a partitioned Dag and does not accept a partition_key.")]
    NotPartitioned { dag_id: String },
    #[error("create a run of DAG {dag_id:?}: {problem}")]
    PartitionKey { dag_id: String, problem: String },
}

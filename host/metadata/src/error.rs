//! What can go wrong between us and Postgres.

/// A failure of the metadata room. `Error::is_passing` tells whether trying again can help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reach the database")]
    Unreachable(#[source] sqlx::Error),
    #[error("run a statement on the database")]
    Statement(#[from] sqlx::Error),
    #[error("read column {column} of {table} for {what}")]
    Row {
        table: &'static str,
        column: &'static str,
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "use the database: its Airflow schema is at revision {found}, this host works with {expected}\nhint: run `modalflow-host create` on a database of Airflow 3.3.2, or migrate it with that version"
    )]
    SchemaRevision {
        found: String,
        expected: &'static str,
    },
    #[error(
        "schedule DAG {dag_id:?}: its task {task_id:?} has a weight rule of its own, and nobody has asked it\nhint: `modalflow-host dags update` with the DAG's file, so that it is parsed again"
    )]
    NoWeight { dag_id: String, task_id: String },
    #[error("store an executor_config")]
    ExecutorConfig(#[from] serde_pickle::Error),
    #[error("read the serialized DAG {dag_id}")]
    SerializedDag {
        dag_id: String,
        #[source]
        source: model::Error,
    },
}

impl Error {
    /// Whether the same call may succeed a moment later: the server restarted, was away, or chose this
    /// transaction as the victim of a deadlock.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let (Self::Unreachable(error) | Self::Statement(error)) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(database) => database.code().is_some_and(|code| {
                matches!(code.get(..2), Some("08" | "57" | "53"))
                    || matches!(&*code, "40001" | "40P01" | "55P03")
            }),
            _ => false,
        }
    }
}

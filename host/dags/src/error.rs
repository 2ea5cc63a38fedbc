//! What can go wrong around DAG files. A file that does not import is no error of ours: it is an outcome.

use std::path::PathBuf;

use crate::SyncReport;

/// A failure of the dags room.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{verb} {path:?}")]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "start Python's {what} ({python:?}): {problem}\nhint: check the Python environment with `modalflow-host env show`"
    )]
    Python {
        what: &'static str,
        python: PathBuf,
        problem: String,
    },
    #[error("write DAGs to the database with Airflow's own code: {problem}")]
    Sync { problem: String, passing: bool },
    #[error("use the database")]
    Database(#[from] metadata::Error),
    #[error(
        "another modalflow-host works on the DAG files of this environment for {waited} s already"
    )]
    Busy { waited: u64 },
    #[error("{}", refused(.report))]
    Refused { report: Box<SyncReport> },
    #[error(
        "create the DAG file {name}: the environment has one of that name already\nhint: use `modalflow-host dags update`"
    )]
    Exists { name: String },
    #[error(
        "update the DAG file {name}: the environment has none of that name\nhint: use `modalflow-host dags create`"
    )]
    Missing { name: String },
    #[error("find the DAG {dag_id:?}: no file of this environment holds it")]
    UnknownDag { dag_id: String },
    #[error(
        "delete the DAG {dag_id}: its file {path} also holds {}\nhint: take {dag_id} out of the file and run `modalflow-host dags update`",
        .others.join(", ")
    )]
    Shared {
        dag_id: String,
        path: String,
        others: Vec<String>,
    },
}

impl Error {
    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Sync { passing, .. } => *passing,
            Self::Database(error) => error.is_passing(),
            Self::Busy { .. } => true,
            Self::Io { .. }
            | Self::Python { .. }
            | Self::Refused { .. }
            | Self::Exists { .. }
            | Self::Missing { .. }
            | Self::UnknownDag { .. }
            | Self::Shared { .. } => false,
        }
    }

    pub(crate) fn io(
        verb: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { verb, path, source }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(metadata::Error::from(error))
    }
}

fn refused(report: &SyncReport) -> String {
    let mut lines = vec!["upload the DAG files: nothing was changed, because".to_owned()];
    for (path, message) in report.failures() {
        lines.push(format!("{path}: {message}"));
    }
    lines.join("\n")
}

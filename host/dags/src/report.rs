//! What a sync tells: one report a file, and steps of progress on the way.

use serde::Serialize;

/// What became of one DAG file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Parsed {
        dag_ids: Vec<String>,
    },
    /// The content is that of the last time, and so is what it holds, or why it does not import.
    Unchanged {
        dag_ids: Vec<String>,
        error: Option<String>,
    },
    /// The text of its import-error row.
    Failed {
        message: String,
    },
    Gone,
}

/// One DAG file in a report. Files that hold no DAG (modules that others import) are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// Relative to the DAG folder.
    pub path: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What rules and Python warned of.
    pub warnings: Vec<String>,
    /// How long its parsing took; 0 if it was not parsed.
    pub seconds: f64,
}

/// The whole folder after a sync, by path.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SyncReport {
    pub files: Vec<FileReport>,
    /// DAGs that Airflow's tables did not have before, and whether they start paused.
    pub new_dags: Vec<NewDag>,
    /// Walls around the parser that this kernel can't raise.
    pub missing_walls: Vec<String>,
}

/// A Dag that was stored for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDag {
    pub dag_id: String,
    pub is_paused: bool,
}

impl SyncReport {
    /// The files that do not import, with the reasons.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|file| match &file.outcome {
            Outcome::Failed { message } => Some((file.path.as_str(), message.as_str())),
            Outcome::Unchanged {
                error: Some(message),
                ..
            } => Some((file.path.as_str(), message.as_str())),
            Outcome::Parsed { .. } | Outcome::Unchanged { error: None, .. } | Outcome::Gone => None,
        })
    }

    /// The ids of all DAGs that the folder holds now.
    pub fn dag_ids(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|file| match &file.outcome {
            Outcome::Parsed { dag_ids }
            | Outcome::Unchanged {
                dag_ids,
                error: None,
            } => dag_ids.iter().map(String::as_str).collect::<Vec<_>>(),
            Outcome::Unchanged { error: Some(_), .. } | Outcome::Failed { .. } | Outcome::Gone => {
                Vec::new()
            }
        })
    }
}

/// Where a sync stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    StartingParser,
    Parsed { done: usize, of: usize },
    Writing { files: usize },
}

/// Hears of each [`Step`].
pub type Progress<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// A [`Progress`] that tells nobody.
pub fn quiet(_: Step) {}

//! The Python process that writes Airflow's tables (`host/python/dag_sync.py`): the only one with the database's URL,
//! and one that never imports a user's file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::helper::{Helper, Program};
use crate::verdict::DagWarning;
use crate::{Error, Result, Settings, text};

/// For one batch, and more for each file of it.
const BATCH: Duration = Duration::from_secs(60);
const FILE: Duration = Duration::from_secs(2);

/// What is to be written.
#[derive(Debug, Serialize)]
pub(crate) struct Batch {
    pub(crate) op: &'static str,
    pub(crate) bundle: &'static str,
    pub(crate) root: String,
    pub(crate) files: Vec<File>,
    /// All files that there are, so that what is not among them is gone.
    pub(crate) present: Vec<String>,
    pub(crate) gone: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) fileloc: String,
    pub(crate) seconds: f64,
    pub(crate) error: Option<String>,
    pub(crate) dags: Vec<Box<RawValue>>,
    pub(crate) warnings: Vec<DagWarning>,
}

/// What was written.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    pub(crate) dags: BTreeMap<String, WrittenDag>,
    /// Files that parsed and yet cannot be stored; their import-error rows are written.
    pub(crate) errors: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WrittenDag {
    pub(crate) paused: bool,
    pub(crate) new: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Failed { failed: String, passing: bool },
    Written(Written),
}

pub(crate) struct Syncer {
    program: Program,
    process: Option<Helper>,
}

impl Syncer {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut environment = settings.sync_environment.clone();
        // A file is written as soon as it changed: there is no loop that would write it again and again.
        environment.push((
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL".to_owned(),
            "0".to_owned(),
        ));
        Self {
            program: Program {
                what: "DAG sync",
                name: "dag_sync",
                text: include_str!("../../python/dag_sync.py"),
                python: settings.python.clone(),
                scratch: settings.scratch.clone(),
                environment,
            },
            process: None,
        }
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it without waiting until it has imported Airflow.
    pub(crate) fn launch(&mut self) -> Result<()> {
        if self.process.is_none() {
            self.process = Some(self.program.launch()?);
        }
        Ok(())
    }

    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<Written> {
        self.launch()?;
        let mut process = self.process.take().expect("it was just launched");
        let limit = BATCH + FILE * u32::try_from(batch.files.len()).unwrap_or(u32::MAX >> 8);
        let answer = process.ask(batch, limit).await;
        // A process that lost step is not used again.
        match answer.map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(Answer::Written(written))) => {
                self.process = Some(process);
                Ok(written)
            }
            Ok(Ok(Answer::Failed { failed, passing })) => {
                self.process = Some(process);
                Err(Error::Sync {
                    problem: text::last_lines(&failed, 12),
                    passing,
                })
            }
            Ok(Err(error)) => Err(Error::Sync {
                problem: format!("its answer cannot be read: {error}"),
                passing: false,
            }),
            Err(error) => Err(self.program.ended(&error)),
        }
    }
}

//! The Python process that writes Airflow's tables (`host/python/dag_sync.py`): the only one with the database's URL,
//! and one that never imports a user's file.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::verdict::DagWarning;
use crate::{Error, Result, Settings, frames, text, walls};

const PROGRAM: &str = include_str!("../../python/dag_sync.py");

const START: Duration = Duration::from_secs(60);
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
    settings: Settings,
    process: Option<Process>,
}

struct Process {
    /// Killed when it is dropped.
    _child: Child,
    link: UnixStream,
    is_ready: bool,
}

impl Syncer {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            process: None,
        }
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it without waiting until it has imported Airflow.
    pub(crate) fn launch(&mut self) -> Result<()> {
        if self.process.is_none() {
            self.process = Some(launch(&self.settings)?);
        }
        Ok(())
    }

    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<Written> {
        self.launch()?;
        let mut process = self.process.take().expect("it was just launched");
        let limit = BATCH + FILE * u32::try_from(batch.files.len()).unwrap_or(u32::MAX >> 8);
        let exchange = async {
            if !process.is_ready {
                timeout(START, frames::receive_json(&mut process.link)).await??;
                process.is_ready = true;
            }
            frames::send_json(&mut process.link, batch).await?;
            timeout(limit, frames::receive_json(&mut process.link)).await?
        };
        let answer: std::io::Result<Vec<u8>> = exchange.await;
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
            Err(error) => Err(self.ended(&error)),
        }
    }

    fn ended(&self, error: &std::io::Error) -> Error {
        let log = fs::read_to_string(self.settings.scratch.join(LOG)).unwrap_or_default();
        Error::Python {
            what: "DAG sync",
            python: self.settings.python.clone(),
            problem: format!("{error}; it said:\n{}", text::last_lines(&log, 8)),
        }
    }
}

const LOG: &str = "dag_sync.log";

fn launch(settings: &Settings) -> Result<Process> {
    let programs = settings.scratch.join("programs");
    fs::create_dir_all(&programs).map_err(Error::io("make directory", &programs))?;
    let program = programs.join("dag_sync.py");
    fs::write(&program, PROGRAM).map_err(Error::io("write", &program))?;
    let log_path = settings.scratch.join(LOG);
    let log = fs::File::create(&log_path).map_err(Error::io("write", log_path))?;
    let start = || {
        let (link, theirs) = frames::pair()?;
        let child = walls::bare_command(&settings.python, &settings.sync_environment)
            .args(["-I", "-B"])
            .arg(&program)
            // A file is written as soon as it changed: there is no loop that would write it again and again.
            .env("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
            .env("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
            .current_dir(&programs)
            .stdin(Stdio::from(theirs))
            .stderr(Stdio::from(log))
            .spawn()?;
        Ok(Process {
            _child: child,
            link,
            is_ready: false,
        })
    };
    start().map_err(|error: std::io::Error| Error::Python {
        what: "DAG sync",
        python: settings.python.clone(),
        problem: error.to_string(),
    })
}

//! A Python process of ours that answers one request at a time, with the database's URL in its environment: starting
//! it, talking to it, and ending it when it lost step.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::{Error, Result, frames, text, walls};

/// Airflow's imports on a busy machine.
const START: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// In error texts.
    pub(crate) what: &'static str,
    /// The name of its file and its log, without an ending.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) python: PathBuf,
    pub(crate) scratch: PathBuf,
    /// The whole of it.
    pub(crate) environment: Vec<(String, String)>,
}

pub(crate) struct Helper {
    /// Killed when it is dropped.
    _child: Child,
    link: UnixStream,
    is_ready: bool,
}

impl Program {
    /// Starts it without waiting until it has imported Airflow.
    pub(crate) fn launch(&self) -> Result<Helper> {
        let programs = self.scratch.join("programs");
        fs::create_dir_all(&programs).map_err(Error::io("make directory", &programs))?;
        let program = programs.join(format!("{}.py", self.name));
        fs::write(&program, self.text).map_err(Error::io("write", &program))?;
        let log_path = self.log_path();
        let log = fs::File::create(&log_path).map_err(Error::io("write", log_path))?;
        let start = || {
            let (link, theirs) = frames::pair()?;
            let child = walls::bare_command(&self.python, &self.environment)
                .args(["-I", "-B"])
                .arg(&program)
                .env("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
                .current_dir(&programs)
                .stdin(Stdio::from(theirs))
                .stderr(Stdio::from(log))
                .spawn()?;
            Ok(Helper {
                _child: child,
                link,
                is_ready: false,
            })
        };
        start().map_err(|error: std::io::Error| Error::Python {
            what: self.what,
            python: self.python.clone(),
            problem: error.to_string(),
        })
    }

    /// The error of a process that ended, or was too slow, with what it said last.
    pub(crate) fn ended(&self, error: &std::io::Error) -> Error {
        Error::Python {
            what: self.what,
            python: self.python.clone(),
            problem: format!("{error}; it said:\n{}", self.last_words()),
        }
    }

    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        text::last_lines(&log, 8)
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.join(format!("{}.log", self.name))
    }
}

impl Helper {
    /// Waits until it has imported Airflow.
    pub(crate) async fn ready(&mut self) -> std::io::Result<()> {
        if !self.is_ready {
            timeout(START, frames::receive_json(&mut self.link)).await??;
            self.is_ready = true;
        }
        Ok(())
    }

    /// After an error the process must not be used again: it may have lost step.
    pub(crate) async fn ask(
        &mut self,
        request: &impl Serialize,
        limit: Duration,
    ) -> std::io::Result<Vec<u8>> {
        self.ready().await?;
        frames::send_json(&mut self.link, request).await?;
        timeout(limit, frames::receive_json(&mut self.link)).await?
    }
}

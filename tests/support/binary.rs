//! The binary, run as a user runs it.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A value that `tests/run` exports.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn prepared(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run these tests through tests/run, which makes what they need")
    })
}

/// The binary, without anything of the caller's environment that could change what it does.
#[must_use]
pub fn modalflow<I, S>(arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(PathBuf::from(prepared("MODALFLOW_TEST_HOST")));
    command.args(arguments).stdin(Stdio::null());
    command.env("MODALFLOW_HOME", prepared("MODALFLOW_TEST_HOME"));
    command
        .env_remove("MODALFLOW_ENV")
        .env_remove("MODALFLOW_LOG")
        .env("COLUMNS", "100");
    command
}

/// A command that ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Runs it to its end.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        let output = command.output().expect("the binary starts");
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed, when it succeeded.
    ///
    /// # Panics
    /// When it failed; shows what it said.
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// As [`Self::ok`], read as JSON.
    ///
    /// # Panics
    /// When it failed or printed something else.
    #[must_use]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

/// The conversation as snapshots show it.
impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => writeln!(f, "exit code: {code}")?,
            None => writeln!(f, "killed")?,
        }
        write!(
            f,
            "----- stdout -----\n{}----- stderr -----\n{}",
            self.stdout, self.stderr
        )
    }
}

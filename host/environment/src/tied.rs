//! An `airflow …` process that lives no longer than we do: it has a process group of its own, ends when it is
//! dropped, and the kernel ends it with us even after `kill -9`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::airflow::{Purpose, command};
use crate::process::{self, Record, Recorded};
use crate::python::PythonEnv;
use crate::{Environment, Error, Result};

/// How long it may take to end after it was asked.
const END: Duration = Duration::from_secs(5);

/// Python asks the kernel to end it together with us, then becomes `airflow`; a `kill -9` of the host must not leave
/// anything behind that nobody knows of.
const TIED: &str = "\
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit('its host has gone')
sys.argv[0] = 'airflow'
runpy.run_module('airflow', run_name='__main__', alter_sys=True)
";

/// The running process. Dropped, it ends with everything it started.
#[derive(Debug)]
pub(crate) struct Tied {
    /// What it says.
    pub(crate) log: PathBuf,
    process: Recorded,
    _record: Record,
    pub(crate) ended: tokio::sync::watch::Receiver<Option<ExitStatus>>,
}

impl Tied {
    /// Starts `airflow ARGUMENTS` under the name `what`, which also names its log.
    pub(crate) fn start(
        environment: &Environment,
        python: &PythonEnv,
        what: &'static str,
        purpose: Purpose,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Tied> {
        let log = environment.run_dir().join(format!("{what}.log"));
        crate::secrets::write_private(&log, b"")?;
        let said = std::fs::OpenOptions::new()
            .append(true)
            .open(&log)
            .map_err(Error::io("open", &log))?;
        let again = said.try_clone().map_err(Error::io("open", &log))?;
        let plain = command(environment, python, purpose, &[]);
        let mut tied = like(plain.as_std());
        tied.args(["-c", TIED, &std::process::id().to_string()])
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(again)
            .process_group(0);
        let (pid, ended) = spawn(what, tied)?;
        let record = process::record(environment, what, pid, true)?;
        let pid = i32::try_from(pid).unwrap_or(-1);
        Ok(Tied {
            log,
            process: Recorded {
                pid,
                started: process::start_time(pid).unwrap_or(0),
                group: true,
            },
            _record: record,
            ended,
        })
    }

    /// Ends it and everything it started.
    pub(crate) async fn stop(self) {
        self.process.end(END).await;
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        // After `stop` there is nothing left to signal.
        self.process.end_now(END);
    }
}

/// The same program, folder and environment, without arguments.
fn like(command: &std::process::Command) -> std::process::Command {
    let mut like = std::process::Command::new(command.get_program());
    if let Some(directory) = command.get_current_dir() {
        like.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => like.env(name, value),
            None => like.env_remove(name),
        };
    }
    like
}

/// Starts it from a thread that stays until it ends: the kernel takes the end of the starting *thread* for ours,
/// and a runtime's threads come and go.
fn spawn(
    what: &'static str,
    mut command: std::process::Command,
) -> Result<(u32, tokio::sync::watch::Receiver<Option<ExitStatus>>)> {
    let (tell_end, ended) = tokio::sync::watch::channel(None);
    let (tell_pid, pid) = mpsc::channel();
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Spawn {
        program: program.clone(),
        source,
    };
    std::thread::Builder::new()
        .name(what.to_owned())
        .spawn(move || match command.spawn() {
            Ok(mut child) => {
                let _ = tell_pid.send(Ok(child.id()));
                let _ = tell_end.send(child.wait().ok());
            }
            Err(error) => {
                let _ = tell_pid.send(Err(error));
            }
        })
        .map_err(failed)?;
    match pid.recv() {
        Ok(Ok(pid)) => Ok((pid, ended)),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(std::io::Error::other("its thread ended"))),
    }
}

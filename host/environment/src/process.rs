//! Other processes: run one to its end, record one that lives on, end a recorded one. Only recorded processes are
//! ever signalled, and only while they are still the process that was recorded.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::state::RunAs;
use crate::{Environment, Error, Result};

/// Runs a program to its end and returns what it said. It dies with us if we are cancelled.
pub(crate) async fn run(mut command: Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| Error::Spawn {
            program: command
                .as_std()
                .get_program()
                .to_string_lossy()
                .into_owned(),
            source,
        })
}

/// Lets a program run as another user, when there is one to drop to.
pub(crate) fn drop_to(command: &mut Command, user: Option<&RunAs>) {
    if let Some(user) = user {
        // The standard library drops root's other groups together with the uid.
        command.gid(user.gid).uid(user.uid);
    }
}

/// The last lines of what a program said, for an error message.
pub(crate) fn last_lines(output: &Output, count: usize) -> String {
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.trim().is_empty() {
        text = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    let tail = tail(&text, count);
    if tail.is_empty() {
        format!("it ended with {}", output.status)
    } else {
        tail
    }
}

/// The last non-empty lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A process that belongs to an environment and outlives the command that started it. Stands in `run/<what>.pid`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub pid: i32,
    /// The kernel's start time: a later process with the same id has another.
    pub started: u64,
    /// Whether signals go to its whole process group.
    pub group: bool,
}

/// The record of a process; its file goes when this is dropped.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    ours: Recorded,
}

impl Drop for Record {
    fn drop(&mut self) {
        // Another process may have replaced the file since; that one is not ours to remove.
        if read(&self.path).as_ref() == Some(&self.ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Records a process in the environment's `run/`, so that `destroy` finds it.
pub fn record(environment: &Environment, what: &str, pid: u32, group: bool) -> Result<Record> {
    let path = environment.run_dir().join(format!("{what}.pid"));
    let pid = i32::try_from(pid).unwrap_or(-1);
    let ours = Recorded {
        pid,
        started: start_time(pid).unwrap_or(0),
        group,
    };
    let text = serde_json::to_vec(&ours).expect("a record is always JSON");
    crate::secrets::write_private(&path, &text)?;
    Ok(Record { path, ours })
}

/// The process recorded as `what`, if it still runs.
pub fn running(environment: &Environment, what: &str) -> Option<Recorded> {
    read(&environment.run_dir().join(format!("{what}.pid"))).filter(Recorded::is_alive)
}

/// Everything recorded that still runs.
pub(crate) fn all_running(run_dir: &Path) -> Vec<(String, Recorded)> {
    let Ok(entries) = std::fs::read_dir(run_dir) else {
        return Vec::new();
    };
    let mut found: Vec<(String, Recorded)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let what = path.file_name()?.to_str()?.strip_suffix(".pid")?.to_owned();
            Some((what, read(&path).filter(Recorded::is_alive)?))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

impl Recorded {
    /// Whether it is still the same process.
    pub fn is_alive(&self) -> bool {
        self.pid > 1 && start_time(self.pid) == Some(self.started)
    }

    /// Asks it to end, and after `patience` makes it.
    pub async fn end(&self, patience: Duration) {
        let began = Instant::now();
        self.signal(Signal::SIGTERM);
        while self.is_alive() {
            if began.elapsed() > patience {
                self.signal(Signal::SIGKILL);
            }
            if began.elapsed() > patience + Duration::from_secs(5) {
                tracing::warn!(pid = self.pid, "process does not end, not even by SIGKILL");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The same without a runtime, for `Drop`.
    pub(crate) fn end_now(&self, patience: Duration) {
        let began = Instant::now();
        self.signal(Signal::SIGTERM);
        while self.is_alive() && began.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        let pid = Pid::from_raw(self.pid);
        let _ = if self.group {
            killpg(pid, signal)
        } else {
            kill(pid, signal)
        };
    }
}

fn read(path: &Path) -> Option<Recorded> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Field 22 of /proc/PID/stat; none for a process that is gone or a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses of its own.
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

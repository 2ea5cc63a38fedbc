//! Local processes: start one as a container, see whether it lives, end it with all that it left behind.
//!
//! A container's processes are found by the marker `MODAL_TASK_ID` in their environment: it reaches children that went into
//! sessions of their own as well. Linux only (`/proc`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::{config::FunctionSpec, session::environment_name, state::ProcessKey};

/// What a container inherits from this process; everything else comes from the function.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];
const MARKER: &str = "MODAL_TASK_ID";
const KILL_ROUNDS: usize = 50;

/// A container's program, before it knows its own name and socket.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) command: Vec<OsString>,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) working_dir: PathBuf,
    /// Modal's environment; empty is the default one.
    pub(crate) environment: String,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

impl Launch {
    /// The program that a function from this process is.
    pub(crate) fn of(spec: &FunctionSpec, log_path: &Path) -> Self {
        Self {
            command: spec.command.clone(),
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            environment: spec.environment.clone(),
            stdout: log_path.to_owned(),
            stderr: log_path.to_owned(),
        }
    }
}

/// Starts a program in a session of its own, its output going to files.
pub(crate) fn start(launch: &Launch, task_id: &str, socket: &Path) -> io::Result<Child> {
    let (program, arguments) = launch
        .command
        .split_first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    // Appending, so that the file can be cut while the process writes.
    let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
    let stdout = open(&launch.stdout)?;
    let stderr = if launch.stderr == launch.stdout {
        stdout.try_clone()?
    } else {
        open(&launch.stderr)?
    };
    let mut server_url = OsString::from("unix://");
    server_url.push(socket);

    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&launch.working_dir)
        .env_clear()
        .envs(
            INHERITED
                .iter()
                .filter_map(|name| std::env::var_os(name).map(|value| (name, value))),
        )
        .envs(launch.env.iter().filter(|(name, _)| !is_token(name)))
        .env(MARKER, task_id)
        .env("MODAL_SERVER_URL", server_url)
        .env("MODAL_IS_REMOTE", "1")
        .env("MODAL_ENVIRONMENT", environment_name(&launch.environment))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(false);
    in_own_session(&mut command);
    command.spawn()
}

/// Containers are told no token: the official client would ignore it with a warning.
fn is_token(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with("MODAL_TOKEN_"))
}

#[expect(
    unsafe_code,
    reason = "the standard library has no safe setsid; the closure makes that one call, which is async-signal-safe"
)]
fn in_own_session(command: &mut Command) {
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}

/// The key of a process that runs now; none if there is no such process, or only what its parent has not reaped.
pub(crate) fn key_of(pid: i32) -> Option<ProcessKey> {
    Some(ProcessKey {
        pid,
        start_time: live_stat(pid)?.get(19)?.parse().ok()?,
    })
}

fn parent_of(pid: i32) -> Option<i32> {
    live_stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/<pid>/stat` from the state on, of a process that is not dead yet.
fn live_stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The field before is the name in parentheses, which may hold anything.
    let fields: Vec<_> = stat
        .rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    (!matches!(fields.first()?.as_str(), "Z" | "X")).then_some(fields)
}

pub(crate) fn is_alive(key: ProcessKey) -> bool {
    key_of(key.pid) == Some(key)
}

/// All processes that carry the container's marker, and their descendants: a program may be started with an environment of its own.
pub(crate) fn of_container(task_id: &str) -> Vec<i32> {
    let marker = format!("{MARKER}={task_id}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parents: HashMap<i32, i32> = pids
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found: HashSet<i32> = parents
        .keys()
        .copied()
        .filter(|pid| has_variable(*pid, &marker))
        .collect();
    loop {
        let children: Vec<_> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            return found.into_iter().collect();
        }
        found.extend(children);
    }
}

fn has_variable(pid: i32, variable: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|byte| *byte == 0)
        .any(|one| one == variable.as_bytes())
}

pub(crate) fn signal(task_id: &str, signal: Signal) {
    for pid in of_container(task_id) {
        // Gone in between: that is what was wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Kills until nothing is left, because a process may fork while it is being looked for.
pub(crate) async fn kill_all(task_id: String) {
    let round = move || {
        for attempt in 0..KILL_ROUNDS {
            let pids = of_container(&task_id);
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1 + attempt as u64));
        }
        tracing::warn!(task_id, "processes of a container do not die");
    };
    if let Err(error) = tokio::task::spawn_blocking(round).await {
        tracing::error!(%error, "killing a container's processes failed");
    }
}

/// How many processes the kernel has killed for memory since boot; 0 where it does not tell.
pub(crate) fn kernel_oom_kills() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// "exited with code 7", "was killed by signal 9 (SIGKILL)".
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(name) => format!("was killed by signal {number} ({name})"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{key_of, of_container};

    #[test]
    fn this_process_lives_and_its_key_stays() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(key_of(pid).is_some());
        assert_eq!(key_of(pid), key_of(pid));
        assert_eq!(key_of(i32::MAX), None);
        assert_eq!(of_container("ta-none"), Vec::<i32>::new());
    }
}

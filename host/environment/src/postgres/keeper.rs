//! The keeper: a small process of its own that stops an embedded Postgres once nobody has used it for a minute.
//! It outlives whoever started it, decides nothing else, and ends with the server.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::{Environment, Error, Home, Result, lock, process};

/// How long Postgres runs on without a client.
pub const IDLE: Duration = Duration::from_secs(60);
/// How often the keeper looks.
const LOOK: Duration = Duration::from_secs(5);
/// The keeper's name in `run/`.
pub(super) const RECORD: &str = "postgres-keeper";

/// Marks the server as used now.
pub(super) fn touch(environment: &Environment) -> Result<()> {
    let path = stamp(environment);
    std::fs::write(&path, b"").map_err(Error::io("write", path))
}

/// Its age is the time since somebody last asked for the server.
fn stamp(environment: &Environment) -> PathBuf {
    environment.run_dir().join("postgres.used")
}

/// Starts the keeper unless it runs. Called with the lock held.
pub(super) fn spawn(environment: &Environment) -> Result<()> {
    if process::running(environment, RECORD).is_some() {
        return Ok(());
    }
    let log = environment.run_dir().join("postgres-keeper.log");
    let said = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&log)
        .map_err(Error::io("open", &log))?;
    let program = environment.home().host_program();
    let program = program.map_err(Error::io("find", "/proc/self/exe"))?;
    let mut child = Command::new(&program)
        .args(["postgres-keeper", "--env", environment.name()])
        .env("MODALFLOW_HOME", environment.home().root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .map_err(|source| Error::Spawn {
            program: program.display().to_string(),
            source,
        })?;
    let record = process::record(environment, RECORD, child.id(), false)?;
    // The record is the keeper's from here on: it removes it at its end.
    std::mem::forget(record);
    // If we live longer than the keeper, somebody has to reap it.
    let _ = std::thread::Builder::new()
        .name("keeper-reaper".to_owned())
        .spawn(move || child.wait());
    Ok(())
}

/// The keeper itself: what the hidden command `postgres-keeper --env NAME` does.
pub async fn keep(home: &Home, name: &str) -> Result<()> {
    // `create` starts a keeper long before it ends.
    let environment = Environment::open_unfinished(home, name)?;
    // A session of its own: a Ctrl-C or a closed terminal of whoever started us is not meant for us. Only a
    // session's leader is refused, and it has one already.
    let _ = nix::unistd::setsid();
    keep_for(&environment, IDLE, LOOK).await
}

/// Watches, looking every `look`, until nobody has used the server for `idle`, then stops it. Ends early when the
/// server has gone.
pub(super) async fn keep_for(
    environment: &Environment,
    idle: Duration,
    look: Duration,
) -> Result<()> {
    let Some(cluster) = environment.state().postgres.clone() else {
        return Ok(());
    };
    let address = super::address(&cluster, environment.secrets(), "postgres");
    let options: PgConnectOptions = address
        .url()
        .parse()
        .map_err(|error| super::unreachable(&address, &error))?;
    let options = options.application_name("modalflow-keeper");
    let Some(mut connection) = reconnect(environment, &options).await? else {
        return Ok(());
    };
    let mut last_use = SystemTime::now();
    loop {
        tokio::time::sleep(look).await;
        match super::other_clients(&mut connection).await {
            Ok(0) => {}
            Ok(_) => {
                last_use = SystemTime::now();
                continue;
            }
            // Stopped, killed or restarted by somebody else.
            Err(_) => match reconnect(environment, &options).await? {
                Some(newer) => connection = newer,
                None => return Ok(()),
            },
        }
        if !is_idle(environment, last_use, idle) {
            continue;
        }
        // Whoever wants the server takes the same lock and touches the stamp before it connects.
        let _lock = lock::take(&super::lock_path(environment), super::PATIENCE).await?;
        let unused = matches!(super::other_clients(&mut connection).await, Ok(0));
        if unused && is_idle(environment, last_use, idle) {
            let _ = connection.close().await;
            retire(environment);
            return super::stop_cluster(&cluster).await;
        }
    }
}

/// A new connection, or none if the server has gone. That is settled under the lock: whoever starts the server
/// either finds a keeper that stays, or none.
async fn reconnect(
    environment: &Environment,
    options: &PgConnectOptions,
) -> Result<Option<PgConnection>> {
    let _lock = lock::take(&super::lock_path(environment), super::PATIENCE).await?;
    match PgConnection::connect_with(options).await {
        Ok(connection) => Ok(Some(connection)),
        Err(error) => {
            tracing::info!(%error, "Postgres has gone, and the keeper with it");
            retire(environment);
            Ok(None)
        }
    }
}

/// Removes the keeper's record. Called with the lock held, right before the keeper's end.
fn retire(environment: &Environment) {
    let _ = std::fs::remove_file(environment.run_dir().join(format!("{RECORD}.pid")));
}

fn is_idle(environment: &Environment, last_use: SystemTime, idle: Duration) -> bool {
    let asked = std::fs::metadata(stamp(environment)).and_then(|found| found.modified());
    let last_use = asked.map_or(last_use, |asked| asked.max(last_use));
    // A clock that was set back reads as "just used".
    last_use.elapsed().is_ok_and(|unused| unused >= idle)
}

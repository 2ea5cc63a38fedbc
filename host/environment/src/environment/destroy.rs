//! How an environment goes: its processes end, its data is removed, whatever of it there is.

use std::path::Path;
use std::time::Duration;

use super::{Environment, PATIENCE, lock_path, unknown};
use crate::config::Config;
use crate::home::{Home, Name};
use crate::progress::Progress;
use crate::state::{Phase, State};
use crate::{Error, Result, lock, postgres, process};

/// What `destroy` did, one line each, for the person who asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    pub lines: Vec<String>,
}

impl Environment {
    /// Ends the environment's processes and removes its data. In the user's own database only the schema
    /// `modalflow` goes. Works on what a killed `create` left, too.
    pub async fn destroy(home: &Home, name: &str, progress: &dyn Progress) -> Result<Destroyed> {
        let name = Name::new(name)?;
        if !home.environment(&name).exists() {
            return Err(unknown(home, &name));
        }
        let _lock = lock::take(&lock_path(home, &name), PATIENCE).await?;
        let destroyed = demolish(home, &name, progress).await?;
        let _ = std::fs::remove_file(lock_path(home, &name));
        Ok(destroyed)
    }
}

/// Cleans up after a `create` that failed or was killed.
pub(super) async fn remove_remains(
    home: &Home,
    name: &Name,
    progress: &dyn Progress,
) -> Result<()> {
    demolish(home, name, progress).await.map(drop)
}

/// Ends what runs, then removes what lies: the reverse of `create`, whatever of it happened.
async fn demolish(home: &Home, name: &Name, progress: &dyn Progress) -> Result<Destroyed> {
    let root = home.environment(name);
    let mut destroyed = Destroyed::default();
    let mut say = |line: String| destroyed.lines.push(line);
    let state = State::read(&root.join("state.json"));
    let config = Config::read(&root.join("config.yaml"));
    {
        let _step = progress.step("stopping the environment's processes");
        for (what, recorded) in process::all_running(&root.join("run")) {
            recorded.end(Duration::from_secs(10)).await;
            say(format!("stopped {what} (process {})", recorded.pid));
        }
    }
    if let Ok(state) = &state
        && let Some(cluster) = &state.postgres
    {
        let _step = progress.step("stopping Postgres and removing its data");
        postgres::stop_cluster(cluster).await?;
        if let Some(outside) = &cluster.outside {
            remove_tree(outside)?;
            say(format!("removed {}", outside.display()));
        }
        // Sockets of long paths lie under /tmp.
        if cluster.sockets.starts_with("/tmp") && !cluster.sockets.starts_with(&root) {
            remove_tree(&cluster.sockets)?;
        }
    }
    if let (Ok(config), Ok(state)) = (&config, &state)
        && let Some(external) = &config.connection_string
        && state.phase == Phase::Ready
    {
        postgres::drop_our_schema(external).await?;
        say(format!(
            "dropped the schema modalflow in {}; Airflow's own tables there were left as they are",
            external.place()
        ));
    } else if let (Err(error), Ok(state)) = (&config, &state)
        && state.phase == Phase::Ready
        && state.postgres.is_none()
    {
        say(format!(
            "left the schema modalflow in the database as it is: which one is not known ({error})"
        ));
    }
    remove_tree(&root)?;
    say(format!("removed {}", root.display()));
    Ok(destroyed)
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

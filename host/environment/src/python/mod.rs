//! The Python that holds Airflow: made once from a hash-locked list, found at once ever after.
//!
//! Rooms: `interpreter` chooses a Python, `index` reads the user's pip settings, `installer` installs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::home::{Home, directory};
use crate::progress::Progress;
use crate::{AIRFLOW_VERSION, Error, Result, lock};

mod index;
mod installer;
mod interpreter;

/// Airflow 3.3.2, its dependencies, the drivers for Postgres: names, versions, hashes.
pub const LOCK: &str = include_str!("../../../python/requirements/airflow.txt");
/// uv itself, where it is not on PATH.
const UV_LOCK: &str = include_str!("../../../python/requirements/uv.txt");

/// The file whose presence says that a set-up came to its end.
const COMPLETE: &str = "modalflow.json";

/// How long one modalflow waits for another's set-up.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// An interpreter that can import Airflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonEnv {
    pub python: PathBuf,
    pub site_packages: PathBuf,
    pub airflow_version: String,
    /// The interpreter that it was made from.
    pub made_from: PathBuf,
    pub python_version: String,
}

/// The Python environment of this lock: the one that is there, else a new one.
///
/// It is made where it stays, as its scripts name their own place, and counts only once `modalflow.json` is in it.
pub async fn ensure(home: &Home, progress: &dyn Progress) -> Result<PythonEnv> {
    if let Some(given) = home.given_python() {
        return Ok(given.clone());
    }
    let wanted = std::env::var_os("MODALFLOW_PYTHON").map(PathBuf::from);
    if let Some(found) = find(home, wanted.as_deref()) {
        return Ok(found);
    }
    directory(&home.python_dir())?;
    let _lock = lock::take(&home.python_dir().join(".lock"), PATIENCE).await?;
    // Somebody else may have made it while we waited.
    if let Some(found) = find(home, wanted.as_deref()) {
        return Ok(found);
    }
    let chosen = interpreter::choose(wanted.as_deref()).await?;
    let place = place(home, &chosen);
    if place.exists() {
        std::fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
    }
    let installer = installer::get(home, &chosen, progress).await?;
    let python = installer.environment(&chosen, &place, progress).await?;
    installer
        .install(
            &python,
            LOCK,
            &format!("installing Airflow {AIRFLOW_VERSION} and its dependencies (about 200 MB)"),
            progress,
        )
        .await?;
    let made = interpreter::describe(&python, &chosen).await?;
    let text = serde_json::to_vec_pretty(&made).expect("a Python environment is always JSON");
    crate::secrets::write_private(&place.join(COMPLETE), &text)?;
    Ok(made)
}

/// Wheels of a lock, unpacked in a directory of their own below `into`: for programs that come in wheels.
pub(crate) async fn install_wheels(
    home: &Home,
    into: &Path,
    requirements: &str,
    what: &str,
    progress: &dyn Progress,
) -> Result<PathBuf> {
    let place = into.join(hash(&[requirements]));
    let complete = place.join(COMPLETE);
    if complete.exists() {
        return Ok(place);
    }
    directory(into)?;
    let _lock = lock::take(&into.join(".lock"), PATIENCE).await?;
    if complete.exists() {
        return Ok(place);
    }
    if place.exists() {
        std::fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
    }
    directory(&home.python_dir())?;
    let _python_lock = lock::take(&home.python_dir().join(".lock"), PATIENCE).await?;
    let wanted = std::env::var_os("MODALFLOW_PYTHON").map(PathBuf::from);
    let chosen = interpreter::choose(wanted.as_deref()).await?;
    let installer = installer::get(home, &chosen, progress).await?;
    installer
        .unpack(&chosen, requirements, &place, what, progress)
        .await?;
    crate::secrets::write_private(&complete, b"{}\n")?;
    Ok(place)
}

/// Writes the host's own Python files where Python finds them: a directory named by their content, so that a
/// running process keeps its own when modalflow is replaced. Answers with the directory.
pub fn materialise(home: &Home, files: &[(&str, &str)]) -> Result<PathBuf> {
    let mut content = Sha256::new();
    for (name, text) in files {
        content.update((name.len() as u64).to_le_bytes());
        content.update(name.as_bytes());
        content.update((text.len() as u64).to_le_bytes());
        content.update(text.as_bytes());
    }
    let place = home
        .python_files()
        .join(hex::encode(&content.finalize()[..8]));
    if place.exists() {
        return Ok(place);
    }
    directory(&home.python_files())?;
    let beside = home.python_files().join(format!(
        ".{}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    ));
    for (name, text) in files {
        let path = beside.join(name);
        let parent = path.parent().unwrap_or(&beside);
        std::fs::create_dir_all(parent).map_err(Error::io("make directory", parent))?;
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    match std::fs::rename(&beside, &place) {
        Ok(()) => Ok(place),
        // Another process was faster with the same files.
        Err(_) if place.exists() => {
            let _ = std::fs::remove_dir_all(&beside);
            Ok(place)
        }
        Err(error) => Err(Error::io("write", place)(error)),
    }
}

/// A finished environment of this lock, made from the wanted interpreter if one is wanted. Reads one small file
/// and starts nothing.
fn find(home: &Home, wanted: Option<&Path>) -> Option<PythonEnv> {
    let prefix = format!("{}-", hash(&[LOCK]));
    let mut found: Vec<PythonEnv> = std::fs::read_dir(home.python_dir())
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry
                .file_name()
                .to_str()?
                .starts_with(&prefix)
                .then_some(())?;
            let text = std::fs::read(entry.path().join(COMPLETE)).ok()?;
            let made: PythonEnv = serde_json::from_slice(&text).ok()?;
            // The interpreter below it may have been removed, or the whole home moved.
            let here = made.python.starts_with(entry.path()) && made.python.exists();
            let right = wanted.is_none_or(|wanted| interpreter::is_same(&made.made_from, wanted));
            (here && right).then_some(made)
        })
        .collect();
    found.sort_by(|a, b| a.python.cmp(&b.python));
    found.into_iter().next()
}

/// One directory for a lock and an interpreter.
fn place(home: &Home, chosen: &interpreter::Interpreter) -> PathBuf {
    let path = chosen.path.to_string_lossy();
    home.python_dir().join(format!(
        "{}-{}-{}",
        hash(&[LOCK]),
        chosen.version,
        &hash(&[&path])[..6]
    ))
}

fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..6])
}

#[cfg(test)]
mod tests;

//! Airflow's plugins folder: its classes (timetables, weight rules) are part of what a DAG file means, so a change in
//! it is a change of every file.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::memory::sha256;

/// More than anybody has; beyond it only the first count.
const FILES: usize = 10_000;

/// The folder that an Airflow process with this environment takes plugins from.
pub(crate) fn folder(environment: &[(String, String)]) -> Option<PathBuf> {
    environment
        .iter()
        .find(|(name, _)| name == "AIRFLOW__CORE__PLUGINS_FOLDER")
        .map(|(_, folder)| PathBuf::from(folder))
}

/// Changes with each file of the folder; empty where there is none.
pub(crate) fn fingerprint(folder: Option<&Path>) -> String {
    let mut lines = Vec::new();
    let mut open: Vec<PathBuf> = folder.map(Path::to_owned).into_iter().collect();
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            // Through links, as Python goes.
            let Ok(metadata) = std::fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                if entry.file_name() != "__pycache__" && !is_link {
                    open.push(path);
                }
                continue;
            }
            let changed = metadata
                .modified()
                .ok()
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |since| since.as_nanos());
            lines.push(format!("{}\0{}\0{changed}", path.display(), metadata.len()));
            if lines.len() >= FILES {
                open.clear();
                break;
            }
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    lines.sort_unstable();
    sha256(lines.join("\n").as_bytes())
}

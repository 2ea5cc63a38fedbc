//! What is known of files from the last time (`modalflow.dag_file`), and which of them have to be parsed again.
//! A file whose size and mtime are unchanged is not read; one whose content is unchanged is not parsed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use chrono::{DateTime, TimeDelta, Utc};
use metadata::dag_files::DagFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::discover::Stat;

/// The largest DAG file.
pub(crate) const SOURCE_BYTES: u64 = 1 << 20;
/// The largest other file that is hashed because a DAG file reads it.
const INPUT_BYTES: u64 = 64 << 20;
/// A file changed so shortly before we looked may change again within one step of its clock.
const RACY_NS: i64 = 1_000_000_000;

/// What came of a file. Kept as JSON in the column `outcome`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Memory {
    /// Not for us: a module, an empty file.
    NoDag,
    Parsed {
        dag_ids: Vec<String>,
        #[serde(default)]
        inputs: Vec<Input>,
        #[serde(default)]
        asked: Vec<Asked>,
    },
    Failed {
        message: String,
        /// Held when it last imported: a typing error must not give a file's DAGs away to another file.
        claims: Vec<String>,
        #[serde(default)]
        inputs: Vec<Input>,
        #[serde(default)]
        asked: Vec<Asked>,
        again: Again,
    },
}

/// When a file that failed is worth another look although it did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Again {
    Never,
    /// As soon as any other file changes: that one may have held its dag_id.
    WhenOthersChange,
    /// It may have been the machine: after a minute, then two, four, … an hour.
    Later {
        failures: u32,
    },
}

/// Another file or folder that a DAG file read while it was parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) path: String,
    pub(crate) size: i64,
    pub(crate) mtime_ns: i64,
    pub(crate) sha256: String,
}

/// A Variable or Connection that a file asked for, and what it got.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) kind: String,
    pub(crate) key: String,
    pub(crate) sha256: String,
}

impl Memory {
    pub(crate) fn of(row: &DagFile) -> Option<Self> {
        serde_json::from_str(&row.outcome).ok()
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are always JSON")
    }

    /// The DAGs that nobody else may take.
    pub(crate) fn claims(&self) -> &[String] {
        match self {
            Self::NoDag => &[],
            Self::Parsed { dag_ids, .. } => dag_ids,
            Self::Failed { claims, .. } => claims,
        }
    }

    pub(crate) fn with_inputs(mut self, present: Vec<Input>) -> Self {
        match &mut self {
            Self::NoDag => {}
            Self::Parsed { inputs, .. } | Self::Failed { inputs, .. } => *inputs = present,
        }
        self
    }

    pub(crate) fn inputs(&self) -> &[Input] {
        match self {
            Self::NoDag => &[],
            Self::Parsed { inputs, .. } | Self::Failed { inputs, .. } => inputs,
        }
    }

    pub(crate) fn asked(&self) -> &[Asked] {
        match self {
            Self::NoDag => &[],
            Self::Parsed { asked, .. } | Self::Failed { asked, .. } => asked,
        }
    }

    /// Whether time alone makes it worth another look.
    pub(crate) fn is_due(&self, parsed_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        match self {
            Self::Failed {
                again: Again::Later { failures },
                ..
            } => {
                let minutes = 1_i64 << (*failures).saturating_sub(1).min(6);
                now - parsed_at >= TimeDelta::minutes(minutes.min(60))
            }
            Self::NoDag | Self::Parsed { .. } | Self::Failed { .. } => false,
        }
    }
}

/// The content of a file, read once: what is hashed is what was looked at.
pub(crate) struct Content {
    pub(crate) stat: Stat,
    pub(crate) sha256: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) too_large: bool,
}

/// Reads a DAG file. Beyond [`SOURCE_BYTES`] it is only hashed.
pub(crate) fn read(path: &Path, now: DateTime<Utc>) -> std::io::Result<Content> {
    // Not blocking: it may have become a named pipe since we looked.
    let mut file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a file any more"));
    }
    let mut bytes = Vec::new();
    (&mut file).take(SOURCE_BYTES + 1).read_to_end(&mut bytes)?;
    let too_large = bytes.len() as u64 > SOURCE_BYTES;
    let sha256 = if too_large {
        file.seek(SeekFrom::Start(0))?;
        hash(&mut file)?
    } else {
        sha256(&bytes)
    };
    Ok(Content {
        stat: settled(Stat::from(&metadata), now),
        sha256,
        bytes,
        too_large,
    })
}

/// A stat that is safe to compare with later; else one that no file has.
fn settled(stat: Stat, now: DateTime<Utc>) -> Stat {
    let now = now.timestamp_nanos_opt().unwrap_or(i64::MAX);
    if stat.mtime_ns > now - RACY_NS {
        Stat {
            mtime_ns: -1,
            ..stat
        }
    } else {
        stat
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hash(file: &mut impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The present state of what a file says it read. Only things below `folder` count: the child may say anything.
pub(crate) fn take_inputs(folder: &Path, paths: &[String], now: DateTime<Utc>) -> Vec<Input> {
    let mut inputs: BTreeMap<String, Input> = BTreeMap::new();
    for path in paths {
        let Ok(relative) = Path::new(path).strip_prefix(folder) else {
            continue;
        };
        if let Some(input) = take_input(folder, relative, now) {
            inputs.insert(input.path.clone(), input);
        }
    }
    inputs.into_values().collect()
}

fn take_input(folder: &Path, relative: &Path, now: DateTime<Utc>) -> Option<Input> {
    let plain = relative
        .components()
        .all(|component| matches!(component, Component::Normal(name) if name != "__pycache__"));
    if !plain {
        return None;
    }
    let full = folder.join(relative);
    let metadata = fs::metadata(&full).ok()?;
    let stat = settled(Stat::from(&metadata), now);
    Some(Input {
        path: relative.to_str()?.to_owned(),
        size: stat.size,
        mtime_ns: stat.mtime_ns,
        sha256: hash_input(folder, &full)?,
    })
}

fn hash_input(folder: &Path, full: &Path) -> Option<String> {
    let inside = full
        .canonicalize()
        .ok()?
        .starts_with(folder.canonicalize().ok()?);
    let metadata = fs::metadata(full).ok()?;
    if !inside {
        None
    } else if metadata.is_dir() {
        let mut names: Vec<String> = fs::read_dir(full)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name != "__pycache__" && !name.starts_with('.'))
            .collect();
        names.sort();
        Some(sha256(names.join("\0").as_bytes()))
    } else if metadata.is_file() && metadata.len() <= INPUT_BYTES {
        hash(&mut File::open(full).ok()?).ok()
    } else {
        None
    }
}

/// How what a file read compares with the last time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    Unchanged,
    /// The same content with other times, which are worth remembering.
    Touched(Vec<Input>),
    Changed,
}

/// Compares with what is there now. Unchanged size and mtime are believed.
pub(crate) fn compare_inputs(folder: &Path, inputs: &[Input], now: DateTime<Utc>) -> Inputs {
    let mut present = Vec::with_capacity(inputs.len());
    for input in inputs {
        let Ok(metadata) = fs::metadata(folder.join(&input.path)) else {
            return Inputs::Changed;
        };
        let stat = Stat::from(&metadata);
        if stat.size == input.size && stat.mtime_ns == input.mtime_ns {
            present.push(input.clone());
            continue;
        }
        match take_input(folder, Path::new(&input.path), now) {
            Some(now) if now.sha256 == input.sha256 => present.push(now),
            _ => return Inputs::Changed,
        }
    }
    if present == inputs {
        Inputs::Unchanged
    } else {
        Inputs::Touched(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_ever_more_rarely() {
        let at = DateTime::UNIX_EPOCH;
        let waits: Vec<i64> = (1..=8)
            .map(|failures| {
                let memory = Memory::Failed {
                    message: String::new(),
                    claims: Vec::new(),
                    inputs: Vec::new(),
                    asked: Vec::new(),
                    again: Again::Later { failures },
                };
                (0..100)
                    .find(|&minutes| memory.is_due(at, at + TimeDelta::minutes(minutes)))
                    .unwrap()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    /// A child may name any path as something it read: only what lies in the folder is looked at.
    #[test]
    fn inputs_lie_in_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().canonicalize().unwrap().join("dags");
        fs::create_dir_all(folder.join("__pycache__")).unwrap();
        fs::write(folder.join("a.txt"), "a").unwrap();
        fs::write(folder.join("__pycache__/a.pyc"), "a").unwrap();
        fs::write(root.path().join("secret"), "a").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let named = [
            "a.txt",
            "a.txt",
            "../secret",
            "link",
            "pipe",
            "none",
            "__pycache__/a.pyc",
            "x/../a.txt",
        ];
        let paths: Vec<String> = named
            .iter()
            .map(|name| format!("{}/{name}", folder.display()))
            .chain(["/etc/passwd".to_owned(), "a.txt".to_owned()])
            .collect();
        let now = DateTime::UNIX_EPOCH + TimeDelta::weeks(520_000 / 10);
        let inputs = take_inputs(&folder, &paths, now);
        let found: Vec<&str> = inputs.iter().map(|input| input.path.as_str()).collect();
        assert_eq!(found, ["a.txt"]);
        assert_eq!(compare_inputs(&folder, &inputs, now), Inputs::Unchanged);
        fs::write(folder.join("a.txt"), "b").unwrap();
        File::open(folder.join("a.txt"))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(compare_inputs(&folder, &inputs, now), Inputs::Changed);
    }
}

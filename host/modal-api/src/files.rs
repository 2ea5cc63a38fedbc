//! Local files on their way to a mount or a volume: where their bytes are, what they are called there, and their hashes.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Compiled Python and the like: of no use anywhere else.
const IGNORED_FOLDERS: [&str; 1] = ["__pycache__"];
const DEFAULT_MODE: u32 = 0o644;

/// Where the bytes of an upload are.
#[derive(Debug, Clone)]
pub enum Contents {
    Path(PathBuf),
    Bytes(Bytes),
}

/// One file to bring up.
#[derive(Debug, Clone)]
pub struct Upload {
    /// In a mount the absolute path in the container, in a volume the path below its root.
    pub remote_path: String,
    pub contents: Contents,
    /// Permission bits.
    pub mode: u32,
}

impl Upload {
    #[must_use]
    pub fn bytes(remote_path: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self {
            remote_path: remote_path.into(),
            contents: Contents::Bytes(bytes.into()),
            mode: DEFAULT_MODE,
        }
    }

    /// A local file with the permissions that it has.
    pub fn file(remote_path: impl Into<String>, local: impl Into<PathBuf>) -> Result<Self, Error> {
        let local = local.into();
        let metadata = std::fs::metadata(&local).map_err(|source| failed(&local, source))?;
        Ok(Self {
            remote_path: remote_path.into(),
            mode: mode(&metadata),
            contents: Contents::Path(local),
        })
    }

    /// All files below a local folder, in the order of their names; `__pycache__` is left out, links to files are followed.
    pub fn folder(remote_path: &str, local: &Path) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        walk(remote_path.trim_end_matches('/'), local, &mut found)?;
        Ok(found)
    }

    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    pub(crate) fn size(&self) -> Result<u64, Error> {
        match &self.contents {
            Contents::Bytes(bytes) => Ok(bytes.len() as u64),
            Contents::Path(path) => std::fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(|source| failed(path, source)),
        }
    }

    /// Some of the bytes; fewer at the file's end. Blocks: call it where that is allowed.
    pub(crate) fn read(&self, start: u64, length: usize) -> Result<Bytes, Error> {
        match &self.contents {
            Contents::Bytes(bytes) => {
                let start = usize::try_from(start)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let end = start.saturating_add(length).min(bytes.len());
                Ok(bytes.slice(start..end))
            }
            Contents::Path(path) => {
                read_part(path, start, length).map_err(|source| failed(path, source))
            }
        }
    }

    /// The SHA-256 of the whole. Blocks: call it where that is allowed.
    pub(crate) fn sha256(&self) -> Result<[u8; 32], Error> {
        match &self.contents {
            Contents::Bytes(bytes) => Ok(Sha256::digest(bytes).into()),
            Contents::Path(path) => hash(path).map_err(|source| failed(path, source)),
        }
    }
}

fn walk(remote: &str, local: &Path, found: &mut Vec<Upload>) -> Result<(), Error> {
    let entries = std::fs::read_dir(local).map_err(|source| failed(local, source))?;
    let mut entries: Vec<_> = entries
        .collect::<io::Result<_>>()
        .map_err(|source| failed(local, source))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| failed(&path, io::Error::other("its name is not UTF-8")))?;
        let kind = entry.file_type().map_err(|source| failed(&path, source))?;
        let remote = if remote.is_empty() {
            name.to_owned()
        } else {
            format!("{remote}/{name}")
        };
        if kind.is_dir() {
            if !IGNORED_FOLDERS.contains(&name) {
                walk(&remote, &path, found)?;
            }
        } else if path.is_file() {
            found.push(Upload::file(remote, path)?);
        }
    }
    Ok(())
}

#[cfg(unix)]
fn mode(metadata: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &std::fs::Metadata) -> u32 {
    DEFAULT_MODE
}

fn read_part(path: &Path, start: u64, length: usize) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..read]);
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.display().to_string(),
        source,
    }
}

/// Runs work on files where waiting for a disk holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Unexpected(error.to_string()))?
}

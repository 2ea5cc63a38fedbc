//! What an operator lets a plugin have, and where the host keeps its own files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where the host keeps what plugins need.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Compiled components. Made with mode 0700; machine code is only ever loaded from a directory that is ours alone.
    pub cache_dir: PathBuf,
    /// Values too large for memory, as unnamed temporary files.
    pub spool_dir: PathBuf,
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One that the host carries: `volume-xcom`, `file-task-handler`, `dag-rules`.
    Builtin(&'static str),
    File(PathBuf),
}

/// A directory behind the name that a plugin asks for. Made when it is missing and may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreGrant {
    pub dir: PathBuf,
    pub write: bool,
}

/// Everything a plugin may have. It gets what it imports, wishes for and is granted: all three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    pub stores: BTreeMap<String, StoreGrant>,
    /// Linear memory of one call; at most 1 GiB.
    pub memory_bytes: u64,
    /// How long a call may take. Large values get a second more for each 32 MiB.
    pub deadline: Duration,
}

impl Default for Grants {
    fn default() -> Self {
        Grants {
            stores: BTreeMap::new(),
            memory_bytes: 64 << 20,
            deadline: Duration::from_secs(5),
        }
    }
}

impl Grants {
    /// Adds a store that may be read and written.
    pub fn with_store(mut self, name: &str, dir: impl Into<PathBuf>) -> Self {
        let grant = StoreGrant {
            dir: dir.into(),
            write: true,
        };
        self.stores.insert(name.to_owned(), grant);
        self
    }

    /// Adds a store that may only be read.
    pub fn with_readable_store(mut self, name: &str, dir: impl Into<PathBuf>) -> Self {
        let grant = StoreGrant {
            dir: dir.into(),
            write: false,
        };
        self.stores.insert(name.to_owned(), grant);
        self
    }
}

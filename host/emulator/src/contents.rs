//! Files by the SHA-256 of their content: what clients upload before they say where it belongs.
//!
//! They wait in `<state>/contents`; volumes copy them, mounts point at them. What no mount points at goes after a while.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tonic::Status;

/// Between an upload and the request that uses it there may be a large upload of other files.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(crate) struct Contents {
    folder: PathBuf,
}

impl Contents {
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("contents");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The file of a content, there or not. `hash` is 64 hexadecimal digits.
    pub(crate) fn path(&self, hash: &str) -> Result<PathBuf, Status> {
        let is_hash = hash.len() == 64
            && hash
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_hash {
            Ok(self.folder.join(hash))
        } else {
            Err(Status::invalid_argument(format!(
                "'{hash}' is no SHA-256 in hexadecimal digits"
            )))
        }
    }

    /// Is it there? Who asks will use it: it is kept from now on again.
    pub(crate) fn has(&self, hash: &str) -> Result<bool, Status> {
        let path = self.path(hash)?;
        match fs::File::open(&path) {
            Ok(file) => {
                if let Err(error) = file.set_modified(SystemTime::now()) {
                    tracing::debug!(%error, hash, "content could not be marked as used");
                }
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    /// Keeps bytes that are what they are said to be.
    pub(crate) fn put(&self, hash: &str, bytes: &[u8]) -> Result<(), Status> {
        let path = self.path(hash)?;
        if hex(&Sha256::digest(bytes)) != hash {
            return Err(Status::data_loss(format!(
                "the content's SHA-256 is not {hash}: it has changed while it was sent"
            )));
        }
        let fresh = self.fresh();
        fs::write(&fresh, bytes)
            .and_then(|()| fs::rename(&fresh, path))
            .map_err(not_kept)
    }

    /// Takes a file over whose content has been checked.
    pub(crate) fn take(&self, hash: &str, file: &Path) -> Result<(), Status> {
        fs::rename(file, self.path(hash)?).map_err(not_kept)
    }

    /// Where to write what will be renamed to its place, on the same file system.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join(format!("new-{}", crate::ids::secret()))
    }

    /// Removes what is old and not `in_use`.
    pub(crate) fn clean(&self, in_use: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let is_old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT_FOR));
            if is_old && !entry.file_name().to_str().is_some_and(&in_use) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn not_kept(error: io::Error) -> Status {
    tracing::error!(%error, "a file could not be kept");
    Status::unavailable(format!("a file could not be kept: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Contents, hex};
    use sha2::{Digest, Sha256};

    #[test]
    fn only_what_fits_its_hash_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        let hash = hex(&Sha256::digest(b"text"));
        assert!(!contents.has(&hash).unwrap());
        assert!(contents.put(&hash, b"texd").is_err());
        assert!(!contents.has(&hash).unwrap());
        contents.put(&hash, b"text").unwrap();
        assert!(contents.has(&hash).unwrap());
        assert!(contents.has("../etc/passwd").is_err());
        contents.clean(|_| false);
        assert!(contents.has(&hash).unwrap(), "it is not old");
    }
}

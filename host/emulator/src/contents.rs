//! Files by the SHA-256 of their content: what clients upload before they say where it belongs.
//!
//! They wait in `<state>/contents`; volumes copy them, mounts point at them. What no mount points at goes after a while.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tonic::Status;

/// Between an upload and the request that uses it there may be a large upload of other files.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(crate) struct Contents {
    folder: PathBuf,
    /// Held from the last look at a file's age to its end, and while a file is found or comes.
    ages: Mutex<()>,
}

impl Contents {
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("contents");
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            ages: Mutex::default(),
        })
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
        let _ages = self.ages();
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
        fs::write(&fresh, bytes).map_err(not_kept)?;
        let _ages = self.ages();
        fs::rename(&fresh, path).map_err(not_kept)
    }

    /// Takes a file over whose content has been checked.
    pub(crate) fn take(&self, hash: &str, file: &Path) -> Result<(), Status> {
        let path = self.path(hash)?;
        let _ages = self.ages();
        fs::rename(file, path).map_err(not_kept)
    }

    /// Where to write what will be renamed to its place, on the same file system.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join(format!("new-{}", crate::ids::secret()))
    }

    /// Removes what is old and not `in_use`. What was looked for in the meantime is not old any more.
    pub(crate) fn clean(&self, in_use: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if !is_old(&path) || entry.file_name().to_str().is_some_and(&in_use) {
                continue;
            }
            let _ages = self.ages();
            if is_old(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn ages(&self) -> MutexGuard<'_, ()> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_old(path: &Path) -> bool {
    path.symlink_metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT_FOR))
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
    use std::{fs, time::SystemTime};

    use sha2::{Digest, Sha256};

    use super::{Contents, KEPT_FOR, hex};

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

    #[test]
    fn what_is_looked_for_while_old_files_are_removed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        let [wanted, other] = [b"wanted".as_slice(), b"other"].map(|text| {
            let hash = hex(&Sha256::digest(text));
            contents.put(&hash, text).unwrap();
            let file = fs::File::open(contents.path(&hash).unwrap()).unwrap();
            file.set_modified(SystemTime::now() - 2 * KEPT_FOR).unwrap();
            hash
        });
        // Asked when the age of a file has been seen.
        contents.clean(|hash| {
            assert!(hash != wanted || contents.has(hash).unwrap());
            false
        });
        assert!(contents.has(&wanted).unwrap());
        assert!(!contents.has(&other).unwrap());
    }
}

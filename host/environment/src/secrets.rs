//! `secrets.json` (0600): the keys an environment was born with. They leave this room only as settings of the
//! processes that need them, never in a message.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// All keys of one environment.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// `[api_auth] jwt_secret`: signs and checks the tokens of the Execution API (HS512).
    pub jwt_secret: String,
    /// `[core] fernet_key`: for connections and variables.
    pub fernet_key: String,
    /// `[api] secret_key`: signs the UI's sessions and its requests for logs.
    pub api_secret_key: String,
    /// The UI's user `admin`.
    pub ui_password: String,
    /// The role of the embedded Postgres.
    pub postgres_password: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(***)")
    }
}

impl Secrets {
    /// New ones from the system's random numbers.
    pub(crate) fn generate() -> Secrets {
        Secrets {
            jwt_secret: STANDARD.encode(rand::random::<[u8; 64]>()),
            // cryptography's Fernet wants 32 bytes in the URL alphabet, with padding.
            fernet_key: URL_SAFE.encode(rand::random::<[u8; 32]>()),
            api_secret_key: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()),
            ui_password: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>()),
            postgres_password: hex::encode(rand::random::<[u8; 16]>()),
        }
    }

    /// None at all: for a process that must not have any.
    pub(crate) fn none() -> Secrets {
        Secrets {
            jwt_secret: String::new(),
            fernet_key: String::new(),
            api_secret_key: String::new(),
            ui_password: String::new(),
            postgres_password: String::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Secrets> {
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        serde_json::from_slice(&text).map_err(|error| Error::Damaged {
            path: path.to_owned(),
            // serde_json quotes no values of strings, only kinds and places.
            problem: error.to_string(),
            hint: "the keys in it cannot be made again; put its last good copy back, or destroy the environment",
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).expect("secrets are always JSON");
        text.push(b'\n');
        write_private(path, &text)
    }
}

/// Writes a file that only its owner reads, whole or not at all: a new file beside it, synced, then renamed.
pub(crate) fn write_private(path: &Path, text: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = Path::new(&beside);
    let attempt = || -> std::io::Result<()> {
        match std::fs::remove_file(beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(beside, path)
    };
    attempt().map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn secrets_are_read_by_their_owner_alone_and_come_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets.json");
        let secrets = Secrets::generate();
        secrets.write(&path).unwrap();
        secrets.write(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let read = Secrets::read(&path).unwrap();
        assert_eq!(read.jwt_secret, secrets.jwt_secret);
        assert_eq!(STANDARD.decode(&read.jwt_secret).unwrap().len(), 64);
        assert_eq!(URL_SAFE.decode(&read.fernet_key).unwrap().len(), 32);
        assert_eq!(format!("{secrets:?}"), "Secrets(***)");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

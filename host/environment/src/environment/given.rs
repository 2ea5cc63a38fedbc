//! What a user hands to `create`: a config file, and the file that it names.

use std::path::Path;

use super::REQUIREMENTS;
use crate::config::Config;
use crate::secrets::write_private;
use crate::{Error, Result};

/// A config file with all that it brings.
#[derive(Default)]
pub(super) struct Given {
    pub(super) config: Config,
    text: Vec<u8>,
    /// The file that `modal.requirements` names, seen from the config file.
    pub(super) requirements: Option<Vec<u8>>,
}

impl Given {
    pub(super) fn read(path: &Path) -> Result<Given> {
        let config = Config::read(path)?;
        let requirements = match &config.modal.requirements {
            Some(named) => {
                let named = path.parent().unwrap_or(Path::new("")).join(named);
                Some(std::fs::read(&named).map_err(Error::io("read modal.requirements,", named))?)
            }
            None => None,
        };
        Ok(Given {
            text: std::fs::read(path).map_err(Error::io("read", path))?,
            config,
            requirements,
        })
    }

    /// Puts the files into an environment's directory.
    pub(super) fn keep(&self, root: &Path) -> Result<()> {
        // The connection string in it may hold a password.
        write_private(&root.join("config.yaml"), &self.text)?;
        let kept = root.join(REQUIREMENTS);
        match &self.requirements {
            Some(text) => write_private(&kept, text),
            None => match std::fs::remove_file(&kept) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", kept)(error))
                }
                _ => Ok(()),
            },
        }
    }
}

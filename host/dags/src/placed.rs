//! Files that a create or an update puts into the DAG folder, each whole or not at all, and takes back when the rest fails.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::stage::Stage;
use crate::{Error, Mode, Result};

/// Files that were put into the folder and can be taken back.
pub(crate) struct Placed {
    folder: PathBuf,
    /// Name, and what was there before.
    done: Vec<(String, Option<Vec<u8>>)>,
}

impl Placed {
    pub(crate) fn put(stage: &Stage, folder: &Path, mode: Mode) -> Result<Placed> {
        let mut placed = Placed {
            folder: folder.to_owned(),
            done: Vec::new(),
        };
        for staged in &stage.files {
            let target = folder.join(&staged.name);
            let place = || -> std::io::Result<Option<Vec<u8>>> {
                let before = match mode {
                    Mode::Create => None,
                    Mode::Update => Some(fs::read(&target)?),
                };
                let content = fs::read(stage.directory.join(&staged.name))?;
                write_whole(&target, &content, mode)?;
                Ok(before)
            };
            match place() {
                Ok(before) => placed.done.push((staged.name.clone(), before)),
                Err(source) => {
                    placed.undo();
                    return Err(match (mode, source.kind()) {
                        (Mode::Create, std::io::ErrorKind::AlreadyExists) => Error::Exists {
                            name: staged.name.clone(),
                        },
                        _ => Error::io("write", target)(source),
                    });
                }
            }
        }
        Ok(placed)
    }

    pub(crate) fn keep(self) {}

    pub(crate) fn undo(self) {
        for (name, before) in &self.done {
            let target = self.folder.join(name);
            let undone = match before {
                None => fs::remove_file(&target),
                Some(content) => write_whole(&target, content, Mode::Update),
            };
            if let Err(error) = undone {
                tracing::error!(file = %target.display(), %error, "could not take back a DAG file");
            }
        }
    }
}

/// The file is there whole or not at all; a create never replaces what somebody else put there meanwhile.
fn write_whole(target: &Path, content: &[u8], mode: Mode) -> std::io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = target.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let attempt = || {
        let mut file = fs::File::create(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        match mode {
            Mode::Create => fs::hard_link(&beside, target),
            Mode::Update => fs::rename(&beside, target),
        }
    };
    let done = attempt();
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => done,
    }
}

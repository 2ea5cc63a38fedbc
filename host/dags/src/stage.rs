//! Files that a create or an update was given, in a directory that looks as the DAG folder will: the rest of the
//! folder is linked beside them. What is checked here is what is installed, whoever writes the source meanwhile.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

use crate::discover::might_contain_dag;
use crate::memory::{self, Inputs, Memory, SOURCE_BYTES, compare_inputs};
use crate::report::{FileReport, Outcome};
use crate::sync::{Dags, Examined, Prepared, now};
use crate::triage::too_large;
use crate::{Error, Result, text};

pub(crate) struct Stage {
    pub(crate) directory: PathBuf,
    pub(crate) files: Vec<Staged>,
}

pub(crate) struct Staged {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) sha256: String,
    pub(crate) is_dag: bool,
    /// It can't be a DAG file, for this reason.
    pub(crate) failure: Option<String>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Stage {
    pub(crate) fn new(scratch: &Path, folder: &Path, files: &[PathBuf]) -> Result<Self> {
        let directory = scratch.join("stage").join(format!(
            "{}-{}",
            std::process::id(),
            now().timestamp_micros()
        ));
        fs::create_dir_all(&directory).map_err(Error::io("make directory", &directory))?;
        let directory = directory
            .canonicalize()
            .map_err(Error::io("open", &directory))?;
        let mut stage = Self {
            directory,
            files: Vec::new(),
        };
        let mut names = HashSet::new();
        for file in files {
            let mut staged = stage_file(file, &stage.directory)?;
            if !names.insert(staged.name.clone()) {
                staged.failure = Some(
                    "two of the files have this name\nhint: the DAG folder can hold only one of them"
                        .to_owned(),
                );
            }
            stage.files.push(staged);
        }
        stage.link_rest_of(folder)?;
        Ok(stage)
    }

    /// A DAG file may read what lies beside it.
    fn link_rest_of(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let entry = entry.map_err(Error::io("read", folder))?;
            let name = entry.file_name();
            let link = self.directory.join(&name);
            if name.to_string_lossy().starts_with('.')
                || name == "__pycache__"
                || link.symlink_metadata().is_ok()
            {
                continue;
            }
            symlink(entry.path(), &link).map_err(Error::io("link", link))?;
        }
        Ok(())
    }

    /// What was parsed here, as if it had been parsed in the folder; for files whose path has no odd characters.
    pub(crate) fn prepared(&self, folder: &Path, examined: Vec<Examined>) -> Prepared {
        let (Some(here), Some(there)) = (plain(&self.directory), plain(folder)) else {
            return Prepared::new();
        };
        let sha256: HashMap<&str, &str> = self
            .files
            .iter()
            .map(|staged| (staged.name.as_str(), staged.sha256.as_str()))
            .collect();
        let mut prepared = Prepared::new();
        for mut file in examined {
            let Ok((parsed, _)) = &mut file.verdict else {
                continue;
            };
            // Airflow names a DAG file's module by a hash of its path.
            let module = |folder: &str| {
                hex::encode(Sha1::digest(format!("{folder}/{}", file.path).as_bytes()))
            };
            let (here_module, there_module) = (module(here), module(there));
            for dag in &mut parsed.dags {
                let moved = dag
                    .raw
                    .get()
                    .replace(here, there)
                    .replace(&here_module, &there_module);
                dag.raw = RawValue::from_string(moved)
                    .expect("plain paths take the place of plain paths in JSON");
            }
            for input in &mut parsed.inputs {
                *input = input.replacen(here, there, 1);
            }
            if let Some(sha256) = sha256.get(file.path.as_str()) {
                prepared.insert(file.path.clone(), ((*sha256).to_owned(), file));
            }
        }
        prepared
    }
}

/// A path that reads the same in JSON, from Rust and from Python.
fn plain(path: &Path) -> Option<&str> {
    path.to_str().filter(|path| {
        path.bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\'))
    })
}

impl Dags {
    /// Takes files out of the stage that are in the folder as they are, were parsed as they are, and read nothing that
    /// changes with this update.
    pub(crate) async fn take_unchanged(&self, stage: &mut Stage) -> Result<Vec<FileReport>> {
        let folder = self.folder()?;
        let rows = self.known_files().await?;
        let others = self.changed_answers(&rows).await;
        let known: HashMap<&str, _> = rows.iter().map(|row| (row.path.as_str(), row)).collect();
        let in_folder = |staged: &Staged| {
            staged.failure.is_none()
                && memory::read(&folder.join(&staged.name), now())
                    .is_ok_and(|content| content.sha256 == staged.sha256)
        };
        let (same, changed): (Vec<Staged>, Vec<Staged>) =
            stage.files.drain(..).partition(in_folder);
        stage.files = changed;
        let mut unchanged = Vec::new();
        for staged in same {
            let dag_ids = known.get(staged.name.as_str()).and_then(|row| {
                let believed = row.sha256 == staged.sha256
                    && self.is_parsers(row)
                    && !others.contains(&row.path);
                let memory = Memory::of(row).filter(|_| believed)?;
                let is_same = match &memory {
                    Memory::NoDag => true,
                    Memory::Parsed { inputs, .. } => {
                        compare_inputs(&folder, inputs, now()) != Inputs::Changed
                            && !inputs
                                .iter()
                                .any(|input| stage.files.iter().any(|file| file.name == input.path))
                    }
                    Memory::Failed { .. } => false,
                };
                is_same.then(|| memory.claims().to_vec())
            });
            match dag_ids {
                Some(dag_ids) => unchanged.push(FileReport {
                    path: staged.name,
                    outcome: Outcome::Unchanged {
                        dag_ids,
                        error: None,
                    },
                    warnings: Vec::new(),
                    seconds: 0.0,
                }),
                None => stage.files.push(staged),
            }
        }
        Ok(unchanged)
    }
}

fn stage_file(file: &Path, directory: &Path) -> Result<Staged> {
    let shown = match file.file_name() {
        Some(name) => text::name(&name.to_string_lossy()),
        None => text::name(&file.to_string_lossy()),
    };
    let refused = |why: &str| {
        Ok(Staged {
            name: shown.clone(),
            source: String::new(),
            sha256: String::new(),
            is_dag: false,
            failure: Some(why.to_owned()),
        })
    };
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
        return refused("its name cannot be a file's name\nhint: give the path of a .py file");
    };
    if name.contains(char::is_control) {
        return refused("its name has characters that cannot be shown\nhint: rename it");
    }
    let extension = Path::new(name).extension().unwrap_or_default();
    if extension.eq_ignore_ascii_case("zip") {
        return refused(
            "DAGs in zip files are not supported\nhint: unpack it and give the .py files",
        );
    }
    if extension != "py" {
        return refused(
            "its name does not end in .py\nhint: Airflow takes DAGs from Python files only",
        );
    }
    let metadata = fs::metadata(file).map_err(Error::io("read", file))?;
    if !metadata.is_file() {
        return refused("it is not a file\nhint: give the path of a .py file");
    }
    if metadata.len() > SOURCE_BYTES {
        return refused(&too_large(
            i64::try_from(metadata.len()).unwrap_or(i64::MAX),
        ));
    }
    let content = memory::read(file, now()).map_err(Error::io("read", file))?;
    let target = directory.join(name);
    fs::write(&target, &content.bytes).map_err(Error::io("write", target))?;
    Ok(Staged {
        name: name.to_owned(),
        is_dag: might_contain_dag(&content.bytes),
        source: String::from_utf8_lossy(&content.bytes).into_owned(),
        sha256: content.sha256,
        failure: None,
    })
}

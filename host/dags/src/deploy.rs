//! Files on their way into the DAG folder and out of it. A create or an update is checked beside the folder first, and
//! happens whole or not at all.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use plugin_host::Operation;

use crate::discover::might_contain_dag;
use crate::memory::{self, Memory, SOURCE_BYTES};
use crate::parser::Request;
use crate::report::{FileReport, Outcome, Progress, SyncReport, quiet};
use crate::sync::{Candidate, Dags, Examined, Held, Which, now};
use crate::triage::too_large;
use crate::verdict::Failure;
use crate::{Error, Result, text};

/// What an install may find in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// None of the files is there.
    Create,
    /// All of them are.
    Update,
}

/// What a delete did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub dag_id: String,
    /// The file that was removed, relative to the folder.
    pub path: String,
}

/// Files in a directory of their own, as they would lie in the folder.
struct Stage {
    directory: PathBuf,
    files: Vec<Staged>,
}

struct Staged {
    name: String,
    source: String,
    is_dag: bool,
    /// It can't be a DAG file, for this reason.
    failure: Option<String>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Dags {
    /// Parses and validates files that lie anywhere, as if they were in the folder. Writes nothing.
    pub async fn check(&self, files: &[PathBuf]) -> Result<SyncReport> {
        let mut held = self.hold().await?;
        let stage = self.stage(files)?;
        self.check_staged(&mut held, &stage, Operation::Check, &quiet)
            .await
    }

    /// Checks files and puts them into the folder, all or none; then syncs.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reasons when any of the files is not good.
    pub async fn install(
        &self,
        files: &[PathBuf],
        mode: Mode,
        progress: Progress<'_>,
    ) -> Result<SyncReport> {
        let mut held = self.hold().await?;
        let stage = self.stage(files)?;
        let folder = self.folder()?;
        for staged in stage.files.iter().filter(|staged| staged.failure.is_none()) {
            let exists = folder.join(&staged.name).symlink_metadata().is_ok();
            let name = staged.name.clone();
            match mode {
                Mode::Create if exists => return Err(Error::Exists { name }),
                Mode::Update if !exists => return Err(Error::Missing { name }),
                Mode::Create | Mode::Update => {}
            }
        }
        let operation = match mode {
            Mode::Create => Operation::Create,
            Mode::Update => Operation::Update,
        };
        let report = self
            .check_staged(&mut held, &stage, operation, progress)
            .await?;
        refuse_failures(report)?;
        let placed = Placed::put(&stage, &folder, mode)?;
        // What cannot be stored after all goes back to how it was, in the folder and in the tables.
        let report = match self.sync_held(&mut held, Which::Changed, progress).await {
            Ok(report) => report,
            Err(error) => {
                placed.undo();
                return Err(error);
            }
        };
        let names: HashSet<&str> = stage
            .files
            .iter()
            .map(|staged| staged.name.as_str())
            .collect();
        let report = SyncReport {
            files: report
                .files
                .into_iter()
                .filter(|file| names.contains(file.path.as_str()))
                .collect(),
            ..report
        };
        match refuse_failures(report) {
            Ok(report) => {
                placed.keep();
                Ok(report)
            }
            Err(error) => {
                placed.undo();
                self.sync_held(&mut held, Which::Changed, progress).await?;
                Err(error)
            }
        }
    }

    /// Removes the file of a DAG that holds no other. The DAG becomes inactive; its runs stay.
    pub async fn delete(&self, dag_id: &str) -> Result<Deleted> {
        let mut held = self.hold().await?;
        self.sync_held(&mut held, Which::Changed, &quiet).await?;
        let rows = self.known_files().await?;
        let found = rows.iter().find_map(|row| {
            let claims = Memory::of(row)?.claims().to_vec();
            claims
                .iter()
                .any(|id| id == dag_id)
                .then_some((row.path.clone(), claims))
        });
        let Some((path, claims)) = found else {
            return Err(Error::UnknownDag {
                dag_id: dag_id.to_owned(),
            });
        };
        let others: Vec<String> = claims.into_iter().filter(|id| id != dag_id).collect();
        if !others.is_empty() {
            return Err(Error::Shared {
                dag_id: dag_id.to_owned(),
                path,
                others,
            });
        }
        let full = self.folder()?.join(&path);
        fs::remove_file(&full).map_err(Error::io("remove", full))?;
        self.sync_held(&mut held, Which::Changed, &quiet).await?;
        Ok(Deleted {
            dag_id: dag_id.to_owned(),
            path,
        })
    }

    /// Copies the files beside the folder: what is checked is what is installed, whoever writes the source meanwhile.
    fn stage(&self, files: &[PathBuf]) -> Result<Stage> {
        let directory = self.settings.scratch.join("stage").join(format!(
            "{}-{}",
            std::process::id(),
            now().timestamp_micros()
        ));
        fs::create_dir_all(&directory).map_err(Error::io("make directory", &directory))?;
        let directory = directory
            .canonicalize()
            .map_err(Error::io("open", &directory))?;
        let mut stage = Stage {
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
        Ok(stage)
    }

    async fn check_staged(
        &self,
        held: &mut Held<'_>,
        stage: &Stage,
        operation: Operation,
        progress: Progress<'_>,
    ) -> Result<SyncReport> {
        let folder = self.folder()?;
        let candidates: Vec<Candidate> = stage
            .files
            .iter()
            .filter(|staged| staged.is_dag && staged.failure.is_none())
            .map(|staged| Candidate {
                path: staged.name.clone(),
                request: Request {
                    path: stage.directory.join(&staged.name),
                    root: stage.directory.clone(),
                    also: vec![folder.clone()],
                },
                source: staged.source.clone(),
                operation,
            })
            .collect();
        let mut examined = self
            .examine(&mut held.helpers, &candidates, progress)
            .await?;
        let (holders, claimed) = self.ownership(stage).await?;
        self.settle_ownership(holders, &claimed, &mut examined)
            .await?;
        let mut report = report_staged(stage, examined);
        report.missing_walls = Dags::missing_walls(&held.helpers);
        Ok(report)
    }

    /// Who holds which DAG beside the staged files, and what files of their names hold now.
    async fn ownership(
        &self,
        stage: &Stage,
    ) -> Result<(HashMap<String, String>, HashMap<String, Vec<String>>)> {
        let mut holders = HashMap::new();
        let mut claimed = HashMap::new();
        for row in self.known_files().await? {
            let claims = Memory::of(&row).map_or_else(Vec::new, |memory| memory.claims().to_vec());
            if stage.files.iter().any(|staged| staged.name == row.path) {
                claimed.insert(row.path, claims);
            } else {
                holders.extend(claims.into_iter().map(|dag_id| (dag_id, row.path.clone())));
            }
        }
        Ok((holders, claimed))
    }
}

fn refuse_failures(report: SyncReport) -> Result<SyncReport> {
    if report.failures().next().is_some() {
        return Err(Error::Refused {
            report: Box::new(report),
        });
    }
    Ok(report)
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
        failure: None,
    })
}

fn report_staged(stage: &Stage, examined: Vec<Examined>) -> SyncReport {
    let read: HashSet<PathBuf> = examined
        .iter()
        .filter_map(|file| file.verdict.as_ref().ok())
        .flat_map(|(parsed, _)| parsed.inputs.iter().map(PathBuf::from))
        .collect();
    let mut examined: HashMap<String, Examined> = examined
        .into_iter()
        .map(|file| (file.path.clone(), file))
        .collect();
    let mut report = SyncReport::default();
    for staged in &stage.files {
        let is_read = read.contains(&stage.directory.join(&staged.name));
        let file = if staged.failure.is_none() {
            examined.remove(&staged.name)
        } else {
            None
        };
        let mut entry = FileReport {
            path: staged.name.clone(),
            outcome: Outcome::Parsed {
                dag_ids: file.as_ref().map_or_else(Vec::new, Examined::dag_ids),
            },
            warnings: Vec::new(),
            seconds: file.as_ref().map_or(0.0, |file| file.seconds),
        };
        // The user knows the file by its name, and not where we looked at it.
        let stage_path = format!("{}/", stage.directory.display());
        let failure = match (&staged.failure, file.map(|file| file.verdict)) {
            (Some(why), _) => Some(Failure::new(why)),
            (None, Some(Err(failure))) => Some(failure),
            (None, Some(Ok((parsed, warnings)))) => {
                entry.warnings = warnings;
                (parsed.dags.is_empty() && !is_read).then(no_dag)
            }
            (None, None) => (!is_read).then(no_dag),
        };
        if let Some(failure) = failure {
            entry.outcome = Outcome::Failed {
                message: failure.message.replace(&stage_path, ""),
            };
        }
        report.files.push(entry);
    }
    report
}

fn no_dag() -> Failure {
    Failure::new(
        "it holds no DAG, and none of the other files given imports it\nhint: make the DAG at the top level of the file, with `with DAG(...)` or by calling the function that @dag decorates",
    )
}

/// Files that were put into the folder and can be taken back.
struct Placed {
    folder: PathBuf,
    /// Name, and what was there before.
    done: Vec<(String, Option<Vec<u8>>)>,
}

impl Placed {
    fn put(stage: &Stage, folder: &Path, mode: Mode) -> Result<Placed> {
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

    fn keep(self) {}

    fn undo(self) {
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

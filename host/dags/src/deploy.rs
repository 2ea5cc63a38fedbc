//! Files on their way into the DAG folder and out of it. A create or an update is checked beside the folder first, and
//! happens whole or not at all. What did not change costs nothing.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use plugin_host::Operation;

use crate::memory::Memory;
use crate::parser::Request;
use crate::placed::Placed;
use crate::report::{FileReport, Outcome, Progress, SyncReport, quiet};
use crate::stage::Stage;
use crate::sync::{Candidate, Dags, Examined, Held, Prepared, Which};
use crate::verdict::Failure;
use crate::{Error, Result};

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

impl Dags {
    /// Parses and validates files that lie anywhere, as if they were in the folder. Writes nothing.
    pub async fn check(&self, files: &[PathBuf]) -> Result<SyncReport> {
        let mut held = self.hold().await?;
        let stage = Stage::new(&self.settings.scratch, &self.folder()?, files)?;
        let (report, _) = self
            .check_staged(&mut held, &stage, Operation::Check, &quiet)
            .await?;
        Ok(report)
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
        let folder = self.folder()?;
        let mut stage = Stage::new(&self.settings.scratch, &folder, files)?;
        for staged in stage.files.iter().filter(|staged| staged.failure.is_none()) {
            let exists = folder.join(&staged.name).symlink_metadata().is_ok();
            let name = staged.name.clone();
            match mode {
                Mode::Create if exists => return Err(Error::Exists { name }),
                Mode::Update if !exists => return Err(Error::Missing { name }),
                Mode::Create | Mode::Update => {}
            }
        }
        let (operation, mut unchanged) = match mode {
            Mode::Create => (Operation::Create, Vec::new()),
            Mode::Update => (Operation::Update, self.take_unchanged(&mut stage).await?),
        };
        if stage.files.is_empty() {
            return Ok(SyncReport {
                files: unchanged,
                ..SyncReport::default()
            });
        }
        let (report, prepared) = self
            .check_staged(&mut held, &stage, operation, progress)
            .await?;
        refuse_failures(report)?;
        let placed = Placed::put(&stage, &folder, mode)?;
        // What cannot be stored after all goes back to how it was, in the folder and in the tables.
        let synced = self
            .sync_held(&mut held, Which::Changed, prepared, progress)
            .await;
        let report = match synced {
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
            Ok(mut report) => {
                placed.keep();
                report.files.append(&mut unchanged);
                report.files.sort_by(|a, b| a.path.cmp(&b.path));
                Ok(report)
            }
            Err(error) => {
                placed.undo();
                self.sync_held(&mut held, Which::Changed, Prepared::new(), progress)
                    .await?;
                Err(error)
            }
        }
    }

    /// Removes the file of a DAG that holds no other. The DAG becomes inactive; its runs stay.
    pub async fn delete(&self, dag_id: &str) -> Result<Deleted> {
        let mut held = self.hold().await?;
        self.sync_held(&mut held, Which::Changed, Prepared::new(), &quiet)
            .await?;
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
        self.sync_held(&mut held, Which::Changed, Prepared::new(), &quiet)
            .await?;
        Ok(Deleted {
            dag_id: dag_id.to_owned(),
            path,
        })
    }

    async fn check_staged(
        &self,
        held: &mut Held<'_>,
        stage: &Stage,
        operation: Operation,
        progress: Progress<'_>,
    ) -> Result<(SyncReport, Prepared)> {
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
        let mut report = report_staged(stage, &examined);
        report.missing_walls = Dags::missing_walls(&held.helpers);
        Ok((report, stage.prepared(&folder, examined)))
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

fn report_staged(stage: &Stage, examined: &[Examined]) -> SyncReport {
    let read: HashSet<PathBuf> = examined
        .iter()
        .filter_map(|file| file.verdict.as_ref().ok())
        .flat_map(|(parsed, _)| parsed.inputs.iter().map(PathBuf::from))
        .collect();
    let examined: HashMap<&str, &Examined> = examined
        .iter()
        .map(|file| (file.path.as_str(), file))
        .collect();
    let mut report = SyncReport::default();
    for staged in &stage.files {
        let is_read = read.contains(&stage.directory.join(&staged.name));
        let file = if staged.failure.is_none() {
            examined.get(staged.name.as_str()).copied()
        } else {
            None
        };
        let mut entry = FileReport {
            path: staged.name.clone(),
            outcome: Outcome::Parsed {
                dag_ids: file.map_or_else(Vec::new, Examined::dag_ids),
            },
            warnings: Vec::new(),
            seconds: file.map_or(0.0, |file| file.seconds),
        };
        // The user knows the file by its name, and not where we looked at it.
        let stage_path = format!("{}/", stage.directory.display());
        let message = match (&staged.failure, file.map(|file| &file.verdict)) {
            (Some(why), _) => Some(Failure::new(why).message),
            (None, Some(Err(failure))) => Some(failure.message.clone()),
            (None, Some(Ok((parsed, warnings)))) => {
                entry.warnings.clone_from(warnings);
                (parsed.dags.is_empty() && !is_read).then(no_dag)
            }
            (None, None) => (!is_read).then(no_dag),
        };
        if let Some(message) = message {
            entry.outcome = Outcome::Failed {
                message: message.replace(&stage_path, ""),
            };
        }
        report.files.push(entry);
    }
    report
}

fn no_dag() -> String {
    "it holds no DAG, and none of the other files given imports it\nhint: make the DAG at the top level of the file, with `with DAG(...)` or by calling the function that @dag decorates"
        .to_owned()
}

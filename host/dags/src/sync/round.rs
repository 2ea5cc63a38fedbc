//! One sync from its first file to what is remembered of it: parse what changed, have Airflow's own code write it, keep
//! what was learned.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use chrono::{DateTime, Utc};
use metadata::dag_files::{self, DagFile};
use metadata::{timetables, weights};
use plugin_host::Operation;

use super::{Candidate, Dags, Examined, Helpers, Prepared, Which};
use crate::discover::Found;
use crate::memory::{self, Again, Memory};
use crate::parser::Request;
use crate::report::{FileReport, NewDag, Outcome, Progress, Step, SyncReport};
use crate::syncer::{Batch, File, Written};
use crate::triage::{Task, Triage};
use crate::verdict::{Failure, Parsed, ParsedDag};
use crate::{BUNDLE, Result};

/// One sync on its way.
pub(super) struct Round<'a> {
    pub(super) dags: &'a Dags,
    pub(super) folder: PathBuf,
    pub(super) now: DateTime<Utc>,
    pub(super) parser_hash: String,
    pub(super) triage: Triage,
    pub(super) prepared: Prepared,
    pub(super) report: SyncReport,
}

impl Round<'_> {
    pub(super) async fn run(
        &mut self,
        found: &[Found],
        which: Which,
        helpers: &mut Helpers,
        progress: Progress<'_>,
    ) -> Result<SyncReport> {
        let tasks = std::mem::take(&mut self.triage.tasks);
        let must_write = self.triage.must_write(&tasks, which);
        if must_write {
            // It imports Airflow while files are parsed.
            helpers.syncer.launch()?;
        }
        let mut examined = self.examine(&tasks, helpers, progress).await?;
        self.dags
            .settle_ownership(self.triage.holders(), &self.triage.claims, &mut examined)
            .await?;
        let mut written = Written {
            dags: BTreeMap::new(),
            errors: BTreeMap::new(),
        };
        if must_write {
            let batch = self.batch(found, &examined, which);
            progress(Step::Writing {
                files: batch.files.len(),
            });
            written = helpers.syncer.write(&batch).await?;
            helpers.used = Instant::now();
        }
        for file in &mut examined {
            if let Some(message) = written.errors.get(&file.path) {
                file.verdict = Err(Failure::new(message));
            }
        }
        self.report_written(&written);
        self.remember(&tasks, examined).await?;
        self.report.missing_walls = Dags::missing_walls(helpers);
        self.report.files.append(&mut self.triage.unchanged);
        self.report.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(std::mem::take(&mut self.report))
    }

    async fn examine(
        &mut self,
        tasks: &[Task],
        helpers: &mut Helpers,
        progress: Progress<'_>,
    ) -> Result<Vec<Examined>> {
        let (mut done, mut candidates) = (Vec::new(), Vec::new());
        for task in tasks
            .iter()
            .filter(|task| task.failure.is_none() && task.is_dag)
        {
            match self.prepared.remove(&task.path) {
                Some((sha256, file)) if sha256 == task.sha256 => done.push(file),
                _ => candidates.push(task),
            }
        }
        let candidates: Vec<Candidate> = candidates
            .into_iter()
            .map(|task| Candidate {
                path: task.path.clone(),
                request: Request {
                    path: task.full.clone(),
                    root: self.folder.clone(),
                },
                source: task.source.clone(),
                operation: if task.is_known {
                    Operation::Update
                } else {
                    Operation::Create
                },
            })
            .collect();
        let mut parsed: HashMap<String, Examined> = self
            .dags
            .examine(helpers, &candidates, progress)
            .await?
            .into_iter()
            .chain(done)
            .map(|file| (file.path.clone(), file))
            .collect();
        Ok(tasks
            .iter()
            .map(|task| {
                let verdict = match &task.failure {
                    Some(message) => Err(Failure::new(message)),
                    None => Ok((Parsed::default(), Vec::new())),
                };
                parsed.remove(&task.path).unwrap_or_else(|| Examined {
                    path: task.path.clone(),
                    verdict,
                    seconds: 0.0,
                    asked: Vec::new(),
                })
            })
            .collect())
    }

    fn batch(&self, found: &[Found], examined: &[Examined], which: Which) -> Batch {
        let files = examined
            .iter()
            .map(|file| {
                let (error, dags, warnings) = match &file.verdict {
                    Ok((parsed, _)) => (
                        None,
                        parsed.dags.iter().map(|dag| dag.raw.clone()).collect(),
                        parsed.dag_warnings.clone(),
                    ),
                    Err(failure) => (Some(failure.message.clone()), Vec::new(), Vec::new()),
                };
                File {
                    path: file.path.clone(),
                    fileloc: self.folder.join(&file.path).to_string_lossy().into_owned(),
                    seconds: file.seconds,
                    error,
                    dags,
                    warnings,
                }
            })
            .collect();
        Batch {
            op: "sync",
            bundle: BUNDLE,
            root: self.folder.to_string_lossy().into_owned(),
            files,
            present: found.iter().map(|found| found.path.clone()).collect(),
            gone: self.triage.looks_for_gone(which),
        }
    }

    fn report_written(&mut self, written: &Written) {
        self.report.new_dags = written
            .dags
            .iter()
            .filter(|(_, dag)| dag.new)
            .map(|(dag_id, dag)| NewDag {
                dag_id: dag_id.clone(),
                is_paused: dag.paused,
            })
            .collect();
    }

    /// Writes the rows of what was looked at, and the reports.
    async fn remember(&mut self, tasks: &[Task], examined: Vec<Examined>) -> Result<()> {
        let mut rows = std::mem::take(&mut self.triage.touched);
        let asked = custom_timetables(&examined);
        let weights = custom_weights(&examined);
        for (task, file) in tasks.iter().zip(examined) {
            let memory = self.memory(task, &file);
            let (outcome, warnings) = match file.verdict {
                Ok((_, warnings)) => (
                    Outcome::Parsed {
                        dag_ids: memory.claims().to_vec(),
                    },
                    warnings,
                ),
                Err(failure) => (
                    Outcome::Failed {
                        message: failure.message,
                    },
                    Vec::new(),
                ),
            };
            if task.is_dag || task.failure.is_some() {
                self.report.files.push(FileReport {
                    path: task.path.clone(),
                    outcome,
                    warnings,
                    seconds: file.seconds,
                });
            }
            rows.push(DagFile {
                path: task.path.clone(),
                size: task.stat.size,
                mtime_ns: task.stat.mtime_ns,
                sha256: task.sha256.clone(),
                parser_hash: self.parser_hash.clone(),
                parsed_at: self.now,
                outcome: memory.to_text(),
            });
        }
        for (path, had_dags) in &self.triage.gone {
            if *had_dags {
                self.report.files.push(FileReport {
                    path: path.clone(),
                    outcome: Outcome::Gone,
                    warnings: Vec::new(),
                    seconds: 0.0,
                });
            }
        }
        let gone: Vec<String> = self
            .triage
            .gone
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
        if rows.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut tx = self.dags.db.begin().await?;
        dag_files::put(&mut tx, &rows).await?;
        dag_files::remove(&mut tx, &gone).await?;
        // With the memory of the files: who is killed before this parses them again.
        timetables::ask(&mut tx, &asked, None).await?;
        weights::put(&mut tx, &weights).await?;
        tx.commit().await?;
        Ok(())
    }

    fn memory(&self, task: &Task, file: &Examined) -> Memory {
        let claims = self
            .triage
            .claims
            .get(&task.path)
            .cloned()
            .unwrap_or_default();
        let take = |inputs: &[String]| memory::take_inputs(&self.folder, inputs, self.now);
        match &file.verdict {
            Ok(_) if !task.is_dag => Memory::NoDag,
            Ok((parsed, _)) => Memory::Parsed {
                dag_ids: file.dag_ids(),
                inputs: take(&parsed.inputs),
                asked: file.asked.clone(),
            },
            Err(failure) => Memory::Failed {
                message: failure.message.clone(),
                claims,
                inputs: take(&failure.inputs),
                asked: file.asked.clone(),
                again: match failure.again {
                    Again::Later { failures } => Again::Later {
                        failures: failures + task.failures_before,
                    },
                    other => other,
                },
            },
        }
    }
}

/// The DAGs whose dates only Python can tell.
fn custom_timetables(examined: &[Examined]) -> Vec<String> {
    parsed_dags(examined)
        .filter(|dag| scheduler::runs::custom_timetable(&dag.dag.timetable).is_some())
        .map(|dag| dag.dag_id.clone())
        .collect()
}

/// What weight rules of users' own classes said, by DAG.
fn custom_weights(examined: &[Examined]) -> Vec<(String, BTreeMap<String, i32>)> {
    parsed_dags(examined)
        .filter(|dag| !dag.weights.is_empty())
        .map(|dag| (dag.dag_id.clone(), dag.weights.clone()))
        .collect()
}

fn parsed_dags(examined: &[Examined]) -> impl Iterator<Item = &ParsedDag> {
    examined
        .iter()
        .filter_map(|file| file.verdict.as_ref().ok())
        .flat_map(|(parsed, _)| &parsed.dags)
}

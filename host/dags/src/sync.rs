//! The room's front: [`Dags`], and the sync of the folder with Airflow's tables. Who is first with a dag_id keeps it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use metadata::dag_files::{self, DagFile};
use metadata::{timetables, weights};
use nix::fcntl::{Flock, FlockArg};
use plugin_host::{DagValidator, Operation};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::discover::{Found, discover};
use crate::memory::{self, Again, Asked, Memory, sha256};
use crate::parser::{self, Parser, Request};
use crate::report::{FileReport, NewDag, Outcome, Progress, Step, SyncReport};
use crate::syncer::{Batch, File, Syncer, Written};
use crate::triage::{Task, Triage, triage};
use crate::verdict::{Failure, Parsed, ParsedDag, judge};
use crate::{Answers, BUNDLE, Error, NoAnswers, Result, Settings, plugins, rules};

/// How long one modalflow waits for another that syncs the same folder.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which files a sync parses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that changed, or that read something that changed.
    Changed,
    All,
}

/// The DAG files of one environment.
pub struct Dags {
    pub(crate) settings: Settings,
    pub(crate) db: PgPool,
    validator: Arc<dyn DagValidator>,
    answers: Arc<dyn Answers>,
    helpers: Mutex<Helpers>,
    own_hash: String,
}

/// The two Python processes; kept for the next sync.
pub(crate) struct Helpers {
    parser: Parser,
    syncer: Syncer,
    used: Instant,
    /// Airflow's plugins folder when they started.
    plugins: String,
}

/// Held while the folder and its rows are worked on: in this process and among all on this machine.
pub(crate) struct Held<'a> {
    pub(crate) helpers: tokio::sync::MutexGuard<'a, Helpers>,
    _lock: Flock<std::fs::File>,
}

/// A file to be looked into.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) request: Request,
    pub(crate) source: String,
    pub(crate) operation: Operation,
}

/// A file that was looked into.
pub(crate) struct Examined {
    pub(crate) path: String,
    pub(crate) verdict: std::result::Result<(Parsed, Vec<String>), Failure>,
    pub(crate) seconds: f64,
    pub(crate) asked: Vec<Asked>,
}

/// Files that were looked into beside the folder: by path, with the hash of what was looked at.
pub(crate) type Prepared = HashMap<String, (String, Examined)>;

impl Dags {
    #[must_use]
    pub fn new(settings: Settings, db: PgPool, validator: Arc<dyn DagValidator>) -> Self {
        Self {
            helpers: Mutex::new(Helpers {
                parser: Parser::new(&settings),
                syncer: Syncer::new(&settings),
                used: Instant::now(),
                plugins: String::new(),
            }),
            own_hash: parser_hash(&settings),
            settings,
            db,
            validator,
            answers: Arc::new(NoAnswers),
        }
    }

    /// Lets DAG files have Variables and Connections while they are parsed.
    #[must_use]
    pub fn with_answers(mut self, answers: Arc<dyn Answers>) -> Self {
        self.answers = answers;
        self
    }

    /// Brings Airflow's tables up to what is in the folder. Starts no process when nothing changed.
    pub async fn sync(&self, which: Which, progress: Progress<'_>) -> Result<SyncReport> {
        let mut held = self.hold().await?;
        self.sync_held(&mut held, which, Prepared::new(), progress)
            .await
    }

    /// Stops the Python processes if nobody needed them for `idle`. They start again by themselves.
    pub async fn rest(&self, idle: Duration) {
        if let Ok(mut helpers) = self.helpers.try_lock()
            && helpers.used.elapsed() >= idle
        {
            helpers.parser.stop();
            helpers.syncer.stop();
        }
    }

    pub(crate) async fn hold(&self) -> Result<Held<'_>> {
        let helpers = self.helpers.lock().await;
        let scratch = &self.settings.scratch;
        std::fs::create_dir_all(scratch).map_err(Error::io("make directory", scratch))?;
        let path = scratch.join("lock");
        let started = Instant::now();
        loop {
            let file = std::fs::File::create(&path).map_err(Error::io("open", &path))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    return Ok(Held {
                        helpers,
                        _lock: lock,
                    });
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(Error::Busy {
                        waited: PATIENCE.as_secs(),
                    });
                }
                Err((_, errno)) => return Err(Error::io("lock", path)(errno.into())),
            }
        }
    }

    pub(crate) async fn known_files(&self) -> Result<Vec<DagFile>> {
        Ok(dag_files::all(&mut *self.db.acquire().await?).await?)
    }

    pub(crate) async fn sync_held(
        &self,
        held: &mut Held<'_>,
        which: Which,
        prepared: Prepared,
        progress: Progress<'_>,
    ) -> Result<SyncReport> {
        let now = now();
        let folder = self.folder()?;
        let rows = self.known_files().await?;
        let changed_answers = self.changed_answers(&rows).await;
        let found = blocking(move || discover(&folder)).await??;
        let folder = self.folder()?;
        let plugins = self.plugins();
        if held.helpers.plugins != plugins {
            held.helpers.parser.stop();
            held.helpers.syncer.stop();
            held.helpers.plugins.clone_from(&plugins);
        }
        let parser_hash = self.parser_hash(&plugins);
        let hash = parser_hash.clone();
        let (found, triage) = blocking(move || {
            let triage = triage(&folder, &found, rows, which, &hash, &changed_answers, now);
            (found, triage)
        })
        .await?;
        let mut sync = Sync {
            dags: self,
            folder: self.folder()?,
            now,
            parser_hash,
            triage,
            prepared,
            report: SyncReport::default(),
        };
        sync.run(&found, which, &mut held.helpers, progress).await
    }

    /// The folder without links: what children say about paths is compared with it.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        let folder = &self.settings.folder;
        folder
            .canonicalize()
            .map_err(Error::io("open the DAG folder", folder))
    }

    /// Parses the candidates and asks the rules; answers in their order.
    pub(crate) async fn examine(
        &self,
        helpers: &mut Helpers,
        candidates: &[Candidate],
        progress: Progress<'_>,
    ) -> Result<Vec<Examined>> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        progress(Step::StartingParser);
        helpers.parser.start().await?;
        let requests: Vec<Request> = candidates.iter().map(|c| c.request.clone()).collect();
        let of = requests.len();
        let on_done = |done| progress(Step::Parsed { done, of });
        let ended = helpers
            .parser
            .parse(&requests, &*self.answers, &on_done)
            .await?;
        helpers.used = Instant::now();
        let mut examined = Vec::with_capacity(of);
        for (candidate, ended) in candidates.iter().zip(ended) {
            let verdict = match judge(&ended, self.settings.parse_timeout) {
                Err(failure) => Err(failure),
                Ok(parsed) => rules::check(
                    &candidate.path,
                    &candidate.source,
                    &parsed,
                    candidate.operation,
                    &*self.validator,
                    &self.settings.images,
                )
                .await
                .map(|warnings| (parsed, warnings)),
            };
            examined.push(Examined {
                path: candidate.path.clone(),
                verdict,
                seconds: ended.seconds,
                asked: ended.asked,
            });
        }
        Ok(examined)
    }

    /// Whether a row was made by the parser that we have.
    pub(crate) fn is_parsers(&self, row: &DagFile) -> bool {
        row.parser_hash == self.parser_hash(&self.plugins())
    }

    /// What Airflow's plugins folder is now.
    fn plugins(&self) -> String {
        plugins::fingerprint(plugins::folder(&self.settings.parser_environment).as_deref())
    }

    fn parser_hash(&self, plugins: &str) -> String {
        if plugins.is_empty() {
            return self.own_hash.clone();
        }
        sha256(format!("{}\0{plugins}", self.own_hash).as_bytes())
    }

    pub(crate) fn missing_walls(helpers: &Helpers) -> Vec<String> {
        helpers.parser.missing_walls().to_vec()
    }

    /// The files whose Variables or Connections are others than when they were parsed.
    pub(crate) async fn changed_answers(&self, rows: &[DagFile]) -> HashSet<String> {
        let mut changed = HashSet::new();
        for row in rows {
            let Some(memory) = Memory::of(row) else {
                continue;
            };
            for asked in memory.asked() {
                if parser::answer(&*self.answers, &asked.kind, &asked.key)
                    .await
                    .1
                    != *asked
                {
                    changed.insert(row.path.clone());
                }
            }
        }
        changed
    }

    /// Turns DAGs that somebody else holds into failures. `holders`: who holds what, of the files not examined.
    pub(crate) async fn settle_ownership(
        &self,
        mut holders: HashMap<String, String>,
        claimed: &HashMap<String, Vec<String>>,
        examined: &mut [Examined],
    ) -> Result<()> {
        for file in examined.iter() {
            let held = claimed.get(&file.path).map_or(&[][..], Vec::as_slice);
            for dag_id in held {
                let still = match &file.verdict {
                    Ok((parsed, _)) => parsed.dags.iter().any(|dag| dag.dag_id == *dag_id),
                    Err(_) => true,
                };
                if still {
                    holders
                        .entry(dag_id.clone())
                        .or_insert_with(|| file.path.clone());
                }
            }
        }
        let ids: Vec<String> = examined.iter().flat_map(Examined::dag_ids).collect();
        let foreign =
            dag_files::dags_of_other_bundles(&mut *self.db.acquire().await?, BUNDLE, &ids).await?;
        let foreign: HashMap<String, String> = foreign
            .into_iter()
            .map(|dag| (dag.dag_id, format!("the bundle {}", dag.bundle_name)))
            .collect();
        for file in examined.iter_mut() {
            let ids = file.dag_ids();
            let taken = ids.iter().find_map(|dag_id| {
                let holder = holders
                    .get(dag_id)
                    .filter(|holder| **holder != file.path)
                    .or_else(|| foreign.get(dag_id))?;
                Some(format!(
                    "the dag_id {dag_id:?} belongs to {holder}, which was first\nhint: give the DAG of this file another dag_id"
                ))
            });
            if let Some(message) = taken {
                file.verdict = Err(Failure {
                    again: Again::WhenOthersChange,
                    ..Failure::new(message)
                });
                continue;
            }
            for dag_id in ids {
                holders.insert(dag_id, file.path.clone());
            }
        }
        Ok(())
    }
}

impl Examined {
    pub(crate) fn dag_ids(&self) -> Vec<String> {
        match &self.verdict {
            Ok((parsed, _)) => parsed.dags.iter().map(|dag| dag.dag_id.clone()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// One sync on its way.
struct Sync<'a> {
    dags: &'a Dags,
    folder: PathBuf,
    now: DateTime<Utc>,
    parser_hash: String,
    triage: Triage,
    prepared: Prepared,
    report: SyncReport,
}

impl Sync<'_> {
    async fn run(
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

fn parser_hash(settings: &Settings) -> String {
    let parts = [
        env!("CARGO_PKG_VERSION"),
        parser::PROGRAM,
        &settings.python_key,
        &settings.rules_key,
        &format!("{:?}", settings.parser_environment),
    ];
    sha256(parts.join("\0").as_bytes())
}

/// The one place of this room that reads the clock.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from(SystemTime::now())
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::io("read", Path::new("the DAG folder"))(std::io::Error::other(error))
    })
}

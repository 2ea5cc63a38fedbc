//! The room's front: [`Dags`], and the sync of the folder with Airflow's tables.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use metadata::dag_files::{self, DagFile};
use nix::fcntl::{Flock, FlockArg};
use plugin_host::{DagValidator, Operation};
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::discover::discover;
use crate::memory::{Asked, Memory, sha256};
use crate::parser::{self, Parser, Request};
use crate::report::{Progress, Step, SyncReport};
use crate::syncer::Syncer;
use crate::triage::triage;
use crate::verdict::{Failure, Parsed, judge};
use crate::{Answers, Error, NoAnswers, Result, Settings, plugins, rules};

mod ownership;
mod round;

use round::Round;

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
        let mut round = Round {
            dags: self,
            folder: self.folder()?,
            now,
            parser_hash,
            triage,
            prepared,
            report: SyncReport::default(),
        };
        round.run(&found, which, &mut held.helpers, progress).await
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
}

impl Examined {
    pub(crate) fn dag_ids(&self) -> Vec<String> {
        match &self.verdict {
            Ok((parsed, _)) => parsed.dags.iter().map(|dag| dag.dag_id.clone()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

fn parser_hash(settings: &Settings) -> String {
    let program = parser::PROGRAM.map(|(_, text)| text).concat();
    let parts = [
        env!("CARGO_PKG_VERSION"),
        &program,
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

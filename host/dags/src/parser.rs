//! The warm Python process that forks a child for each DAG file (`host/python/dag_parser`), started when first
//! needed and again when a file takes it down.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::timeout;

use crate::memory::{Asked, sha256};
use crate::walls::{self, Walls};
use crate::{Answers, Error, Result, Settings, frames, plugins, text};

/// A folder that Python runs. What lies in it has names that no DAG file's own modules have.
pub(crate) const PROGRAM: [(&str, &str); 5] = [
    (
        "__main__.py",
        include_str!("../../python/dag_parser/__main__.py"),
    ),
    (
        "modalflow_child.py",
        include_str!("../../python/dag_parser/modalflow_child.py"),
    ),
    (
        "modalflow_frames.py",
        include_str!("../../python/dag_parser/modalflow_frames.py"),
    ),
    (
        "modalflow_job.py",
        include_str!("../../python/dag_parser/modalflow_job.py"),
    ),
    (
        "modalflow_walls.py",
        include_str!("../../python/dag_parser/modalflow_walls.py"),
    ),
];

/// Imports of Airflow on a slow, loaded machine.
const START: Duration = Duration::from_secs(60);
/// How much longer than a file's limit the process may be silent.
const GRACE: Duration = Duration::from_secs(15);

/// One file to parse.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: PathBuf,
    /// The folder that the file is named relative to, and imports from.
    pub(crate) root: PathBuf,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum End {
    Result,
    Timeout,
    Exit {
        code: i32,
    },
    Signal {
        signal: i32,
    },
    Garbage,
    #[serde(rename = "too large")]
    TooLarge,
    /// It took the whole warm process with it.
    #[serde(skip)]
    Parser,
}

/// What is left of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    /// What it sent, unread.
    pub(crate) body: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) seconds: f64,
    pub(crate) asked: Vec<Asked>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Ready {
        scoped: bool,
        missing: Vec<String>,
    },
    Ask {
        id: usize,
    },
    Done {
        id: usize,
        end: End,
        stderr: String,
        seconds: f64,
    },
}

pub(crate) struct Parser {
    settings: Settings,
    process: Option<Process>,
    missing_walls: Vec<String>,
}

struct Process {
    /// Killed when it is dropped.
    _child: Child,
    link: UnixStream,
    /// The DAG folder that it may read, by device and inode: a link may lead to another one meanwhile.
    folder: Option<(u64, u64)>,
}

impl Parser {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            process: None,
            missing_walls: Vec::new(),
        }
    }

    pub(crate) fn missing_walls(&self) -> &[String] {
        &self.missing_walls
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    pub(crate) async fn start(&mut self) -> Result<()> {
        let folder = identity(&self.settings.folder);
        if self
            .process
            .as_ref()
            .is_none_or(|process| process.folder != folder)
        {
            self.process = None;
            let process = launch(&self.settings, &mut self.missing_walls).await?;
            self.process = Some(process);
        }
        Ok(())
    }

    /// Parses all files; answers in their order. `on_done` hears how many are.
    pub(crate) async fn parse(
        &mut self,
        requests: &[Request],
        answers: &dyn Answers,
        on_done: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Vec<Ended>> {
        let mut work = Work {
            requests,
            waiting: (0..requests.len()).collect(),
            flying: HashMap::new(),
            ended: requests.iter().map(|_| None).collect(),
            most_in_flight: self.settings.parallel + 2,
            limit: self.settings.parse_timeout,
        };
        while !work.is_done() {
            self.start().await?;
            let process = self.process.as_mut().expect("it was just started");
            if let Err(error) = work.run(process, answers, on_done).await {
                tracing::warn!(%error, log = %text::last_lines(&self.log(), 5), "the DAG parser went down");
                self.process = None;
                work.blame();
            }
        }
        Ok(work.ended.into_iter().flatten().collect())
    }

    fn log(&self) -> String {
        fs::read_to_string(log_path(&self.settings)).unwrap_or_default()
    }
}

/// The files of one call to [`Parser::parse`].
struct Work<'a> {
    requests: &'a [Request],
    waiting: VecDeque<usize>,
    flying: HashMap<usize, Vec<Asked>>,
    ended: Vec<Option<Ended>>,
    most_in_flight: usize,
    limit: Duration,
}

impl Work<'_> {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    async fn run(
        &mut self,
        process: &mut Process,
        answers: &dyn Answers,
        on_done: &(dyn Fn(usize) + Send + Sync),
    ) -> std::io::Result<()> {
        while !self.is_done() {
            while self.flying.len() < self.most_in_flight {
                let Some(id) = self.waiting.pop_front() else {
                    break;
                };
                self.flying.insert(id, Vec::new());
                let request = &self.requests[id];
                let message = json!({
                    "op": "parse", "id": id, "path": request.path, "root": request.root,
                    "timeout": self.limit.as_secs_f64(),
                });
                frames::send_parser(&mut process.link, &message).await?;
            }
            let (header, body) = timeout(
                self.limit + GRACE,
                frames::receive_parser(&mut process.link),
            )
            .await
            .map_err(std::io::Error::other)??;
            match serde_json::from_slice(&header)? {
                Event::Ask { id } => {
                    let message = self.answer(id, &body, answers).await;
                    frames::send_parser(&mut process.link, &message).await?;
                }
                Event::Done {
                    id,
                    end,
                    stderr,
                    seconds,
                } => {
                    let Some(asked) = self.flying.remove(&id) else {
                        continue;
                    };
                    self.ended[id] = Some(Ended {
                        end,
                        body,
                        stderr,
                        seconds,
                        asked,
                    });
                    on_done(self.ended.iter().flatten().count());
                }
                Event::Ready { .. } => {}
            }
        }
        Ok(())
    }

    /// The question is a child's: anything may stand in it.
    async fn answer(&mut self, id: usize, question: &[u8], answers: &dyn Answers) -> Value {
        #[derive(Deserialize)]
        struct Question {
            kind: String,
            key: String,
        }
        const HINT: &str =
            "ask for it inside a task, or by a template such as {{ var.value.name }}";
        let Ok(Question { kind, key }) = serde_json::from_slice(question) else {
            return json!({"op": "answer", "id": id, "refused": "the question cannot be read", "hint": HINT});
        };
        let (answer, asked) = answer(answers, &kind, &key).await;
        if let Some(all) = self.flying.get_mut(&id) {
            all.push(asked);
        }
        match answer {
            Ok(value) => json!({"op": "answer", "id": id, "value": value}),
            Err(why) => json!({"op": "answer", "id": id, "refused": why, "hint": HINT}),
        }
    }

    /// The process died: the one file in flight did it. Of several, each is tried again by itself.
    fn blame(&mut self) {
        let mut flying: Vec<usize> = self.flying.drain().map(|(id, _)| id).collect();
        if let [guilty] = flying[..] {
            self.ended[guilty] = Some(Ended {
                end: End::Parser,
                body: Vec::new(),
                stderr: String::new(),
                seconds: 0.0,
                asked: Vec::new(),
            });
        } else {
            flying.sort_unstable();
            for id in flying.into_iter().rev() {
                self.waiting.push_front(id);
            }
        }
        self.most_in_flight = 1;
    }
}

/// The answer to a question, and what of it is remembered: enough to see that it changed, too little to guess it from.
pub(crate) async fn answer(
    answers: &dyn Answers,
    kind: &str,
    key: &str,
) -> (std::result::Result<Option<Value>, String>, Asked) {
    let answer = match kind {
        "variable" => answers
            .variable(key)
            .await
            .map(|value| value.map(Value::String)),
        "connection" => answers.connection(key).await,
        _ => Err("nobody answers this".to_owned()),
    };
    let mut digest = sha256(format!("{answer:?}").as_bytes());
    digest.truncate(8);
    let asked = Asked {
        kind: kind.to_owned(),
        key: key.to_owned(),
        sha256: digest,
    };
    (answer, asked)
}

async fn launch(settings: &Settings, missing_walls: &mut Vec<String>) -> Result<Process> {
    let problem = |problem: String| Error::Python {
        what: "DAG parser",
        python: settings.python.clone(),
        problem,
    };
    let folder = identity(&settings.folder);
    let own = settings.scratch.join("parser");
    let program = prepare(settings, &own)?;
    let log =
        fs::File::create(log_path(settings)).map_err(Error::io("write", log_path(settings)))?;
    let (mut link, theirs) = frames::pair().map_err(|error| problem(error.to_string()))?;
    let mut command = walls::bare_command(&settings.python, &settings.parser_environment);
    command
        .args(["-I", "-B"])
        .arg(program)
        .envs(own_environment(&own))
        .env("AIRFLOW__CORE__DAGS_FOLDER", &settings.folder)
        .current_dir(&own)
        .stdin(Stdio::from(theirs))
        .stderr(Stdio::from(log));
    let mut readable = walls::interpreter_directories(&settings.python);
    readable.extend([
        settings.folder.clone(),
        settings.scratch.join("programs"),
        settings.scratch.join("stage"),
    ]);
    readable.extend(settings.parser_may_read.iter().cloned());
    // Airflow's own plugins bring timetables and weight rules that DAG files use.
    readable.extend(plugins::folder(&settings.parser_environment));
    let walls = Walls {
        readable,
        writable: vec![own.clone()],
    };
    let (child, mut missing) = walls::start(command, walls)
        .await
        .map_err(|error| problem(error.to_string()))?;
    let hello = json!({
        "op": "start", "scratch": own, "preload": settings.preload, "parallel": settings.parallel.max(1),
        "memory": settings.parse_memory,
    });
    let ready = async {
        frames::send_parser(&mut link, &hello).await?;
        frames::receive_parser(&mut link).await
    };
    let (header, _) = match timeout(START, ready).await {
        Ok(Ok(ready)) => ready,
        Ok(Err(_)) => return Err(problem(start_failure(settings))),
        Err(_) => {
            return Err(problem(format!(
                "it was not ready after {} s",
                START.as_secs()
            )));
        }
    };
    match serde_json::from_slice(&header) {
        Ok(Event::Ready {
            scoped,
            missing: modules,
        }) => {
            if !scoped {
                missing.push(
                    "this kernel cannot keep a DAG file's signals from the files parsed beside it"
                        .to_owned(),
                );
            }
            for module in modules {
                tracing::info!(%module, "not imported ahead");
            }
        }
        _ => return Err(problem("its first word was not understood".to_owned())),
    }
    for wall in &missing {
        if !missing_walls.contains(wall) {
            tracing::warn!(wall, "a wall around DAG files is missing");
        }
    }
    *missing_walls = missing;
    Ok(Process {
        _child: child,
        link,
        folder,
    })
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Writes the program, and empties the one directory that the parser may write to.
fn prepare(settings: &Settings, own: &Path) -> Result<PathBuf> {
    let program = settings.scratch.join("programs").join("dag_parser");
    for directory in [&program, &settings.scratch.join("stage")] {
        fs::create_dir_all(directory).map_err(Error::io("make directory", directory))?;
    }
    for (name, text) in PROGRAM {
        let path = program.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    if own.exists() {
        fs::remove_dir_all(own).map_err(Error::io("empty", own))?;
    }
    let home = own.join("home");
    fs::create_dir_all(&home).map_err(Error::io("make directory", &home))?;
    // Airflow writes a config with fresh keys into a home that has none.
    let config = home.join("airflow.cfg");
    fs::write(&config, "").map_err(Error::io("write", &config))?;
    Ok(program)
}

fn own_environment(own: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("AIRFLOW_HOME", own.join("home")),
        ("AIRFLOW_CONFIG", own.join("home/airflow.cfg")),
        ("AIRFLOW__LOGGING__BASE_LOG_FOLDER", own.join("home/logs")),
        ("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL".into()),
        // Our own limit holds also where Python's code is not asked.
        ("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "0".into()),
        // Whether a file may hold DAGs was looked at already.
        ("AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE", "False".into()),
        ("_AIRFLOW_PROCESS_CONTEXT", "client".into()),
        ("HOME", own.to_owned()),
        ("TMPDIR", own.to_owned()),
        ("LANG", "C.UTF-8".into()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
        ("USER", "nobody".into()),
        ("LOGNAME", "nobody".into()),
    ]
}

fn log_path(settings: &Settings) -> PathBuf {
    settings.scratch.join("dag_parser.log")
}

fn start_failure(settings: &Settings) -> String {
    let log = fs::read_to_string(log_path(settings)).unwrap_or_default();
    format!("it ended at once, saying:\n{}", text::last_lines(&log, 8))
}

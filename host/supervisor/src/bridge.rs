//! The worker beside a container runtime that is not ours: on Modal the official one takes inputs in and gives outputs back,
//! and hands each over to us, line by line of JSON over a Unix socket. We ask it in turn to make the volume durable.
//!
//! Plugins hold folders of the volume open, and a volume with open files can't be looked at anew: the other side says when
//! nothing runs (`rest`), we let go, and the next `hello` takes them up again. The fork server stays warm all the time, also in
//! a snapshot of the container's memory: whatever is true of one container only comes with `hello`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{Durable, Error, Plugins, Supervisor, WorkerConfig, supervisor::Warm, worker};

/// What the other side says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
enum Word {
    /// From now on inputs come, in this container.
    Hello {
        container: String,
        execution_api_url: String,
        /// What tasks find in this container, also what is private to us.
        environment: BTreeMap<String, String>,
    },
    /// Nothing runs: let go of the volume.
    Rest,
    Run {
        id: u64,
        workload: String,
    },
    Cancel {
        id: u64,
    },
    /// The answer to [`Answer::Commit`].
    Committed {
        id: u64,
        error: Option<String>,
    },
}

/// What we say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "say")]
enum Answer {
    /// The fork server is warm.
    Warm,
    /// After `hello`.
    Ready,
    /// After `rest`.
    Resting,
    /// What was asked for last can't be; inputs that come now fail.
    Failed { reason: String },
    /// Make what was written to the volume durable.
    Commit { id: u64 },
    /// The end of an input.
    Done { id: u64, outcome: Done },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    Returned(Value),
    Raised(String),
    Cancelled,
}

/// Serves the one at the socket until it hangs up; what runs then is ended.
pub async fn run(mut config: WorkerConfig, socket: &Path) -> Result<(), Error> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| Error::Bridge {
            path: socket.to_owned(),
            source,
        })?;
    let (reading, mut writing) = stream.into_split();
    let (answers, mut to_write) = mpsc::unbounded_channel::<Answer>();
    let writer = tokio::spawn(async move {
        while let Some(answer) = to_write.recv().await {
            let mut line = serde_json::to_vec(&answer).expect("an answer is always JSON");
            line.push(b'\n');
            if writing.write_all(&line).await.is_err() {
                return;
            }
        }
    });
    let volume = Arc::new(Volume {
        answers: answers.clone(),
        waiting: Mutex::new(Some(HashMap::new())),
        next: AtomicU64::new(0),
    });
    let warm = match Warm::start(&config).await {
        Ok(warm) => warm,
        Err(error) => {
            let reason = crate::chain(&error);
            let _ = answers.send(Answer::Failed { reason });
            drop((answers, volume));
            let _ = writer.await;
            return Err(error);
        }
    };
    let _ = answers.send(Answer::Warm);
    let mut bridge = Bridge {
        warm,
        supervisor: None,
        volume,
        answers,
        running: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let mut lines = BufReader::new(reading).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => bridge.hear(&line, &mut config).await,
                Ok(None) | Err(_) => break,
            },
            Some(ended) = bridge.tasks.join_next(), if !bridge.tasks.is_empty() => {
                if let Ok(id) = ended {
                    bridge.running.remove(&id);
                }
            }
        }
    }
    // Nobody would take an answer any more. The tasks learn it as a cancellation.
    bridge.running.values().for_each(CancellationToken::cancel);
    bridge.volume.close();
    while bridge.tasks.join_next().await.is_some() {}
    writer.abort();
    Ok(())
}

struct Bridge {
    warm: Warm,
    supervisor: Option<Arc<Supervisor>>,
    volume: Arc<Volume>,
    answers: mpsc::UnboundedSender<Answer>,
    running: HashMap<u64, CancellationToken>,
    tasks: JoinSet<u64>,
}

impl Bridge {
    async fn hear(&mut self, line: &str, config: &mut WorkerConfig) {
        let word = match serde_json::from_str::<Word>(line) {
            Ok(word) => word,
            Err(error) => {
                tracing::error!(%error, "a line that is not known");
                return;
            }
        };
        match word {
            Word::Hello {
                container,
                execution_api_url,
                environment,
            } => {
                config.execution_api_url = execution_api_url;
                let answer = match self.wake_up(config, &container, environment).await {
                    Ok(supervisor) => {
                        self.supervisor = Some(Arc::new(supervisor));
                        Answer::Ready
                    }
                    Err(error) => Answer::Failed {
                        reason: crate::chain(&error),
                    },
                };
                self.say(answer);
            }
            Word::Rest => {
                self.supervisor = None;
                self.say(Answer::Resting);
            }
            Word::Run { id, workload } => self.start(id, workload),
            Word::Cancel { id } => {
                if let Some(cancel) = self.running.get(&id) {
                    cancel.cancel();
                }
            }
            Word::Committed { id, error } => self.volume.hear(id, error),
        }
    }

    async fn wake_up(
        &self,
        config: &WorkerConfig,
        container: &str,
        environment: BTreeMap<String, String>,
    ) -> Result<Supervisor, Error> {
        self.warm.adopt(config, environment)?;
        let plugins = Plugins::load(config).await?;
        let durable: Arc<dyn Durable> = self.volume.clone();
        self.warm
            .supervisor(config, plugins, Some(container), Some(durable))
    }

    fn start(&mut self, id: u64, workload: String) {
        let Some(supervisor) = self.supervisor.clone() else {
            let outcome = Done::Raised("an input came before hello".to_owned());
            self.say(Answer::Done { id, outcome });
            return;
        };
        let cancel = CancellationToken::new();
        self.running.insert(id, cancel.clone());
        let (answers, volume) = (self.answers.clone(), Arc::clone(&self.volume));
        self.tasks.spawn(async move {
            let outcome = worker::work_on(&supervisor, &workload, &cancel).await;
            drop(supervisor);
            // The last lines of the log come after the report of the end.
            let outcome = match volume.commit().await {
                Ok(()) => outcome,
                Err(error) => {
                    tracing::error!(error, "the volume could not be committed at the end");
                    outcome
                }
            };
            let outcome = match outcome {
                worker::Ended::Returned(value) => Done::Returned(value),
                worker::Ended::Raised(reason) => Done::Raised(reason),
                worker::Ended::Cancelled => Done::Cancelled,
            };
            let _ = answers.send(Answer::Done { id, outcome });
            id
        });
    }

    fn say(&self, answer: Answer) {
        // Whoever does not listen any more has hung up, which is heard elsewhere.
        let _ = self.answers.send(answer);
    }
}

/// Longer than any commit takes that comes to its end.
const COMMIT: Duration = Duration::from_secs(300);

/// The volume, made durable by the other side.
#[derive(Debug)]
struct Volume {
    answers: mpsc::UnboundedSender<Answer>,
    /// None when nobody answers any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Option<String>>>>>,
    next: AtomicU64,
}

impl Volume {
    fn hear(&self, id: u64, error: Option<String>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
            let _ = waiter.send(error);
        }
    }

    /// Nobody answers any more.
    fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take();
    }
}

#[async_trait]
impl Durable for Volume {
    async fn commit(&self) -> Result<(), String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        let gone = || "whoever commits the volume is gone".to_owned();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .ok_or_else(gone)?
            .insert(id, tell);
        self.answers
            .send(Answer::Commit { id })
            .map_err(|_| gone())?;
        match tokio::time::timeout(COMMIT, told).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(error))) => Err(error),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(format!("it took longer than {} s", COMMIT.as_secs())),
        }
    }
}

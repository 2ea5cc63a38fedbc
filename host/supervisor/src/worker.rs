//! The main of a worker process: a container of the function `run_task`, on Modal or started by the emulator.
//! It takes inputs, runs each as a task, gives an answer for each, and goes when it is told to or left alone.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use modal_api::container::{Client, Input, Inputs, Outcome};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    CallbackOutcome, Error, ExecuteTask, RunCallback, Supervisor, TaskOutcome, WorkerConfig,
    Workload,
};

/// How long a worker without work waits for a server that is away.
const ALONE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until the server says to leave, SIGTERM or SIGINT comes, or the server stays away and there is nothing left to do.
pub async fn run(config: WorkerConfig) -> Result<(), Error> {
    let client = Client::from_env().map_err(Error::Modal)?.patience(ALONE);
    let started = async {
        let (supervisor, ()) = futures::try_join!(Supervisor::start(&config), async {
            client.hello().await.map_err(Error::Modal)
        })?;
        Ok(supervisor)
    };
    let supervisor: Supervisor = match started.await {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let text = crate::chain(&error);
            if let Err(unsaid) = client.task_failed(text.clone(), text).await {
                tracing::error!(%unsaid, "the server does not know that this worker could not start");
            }
            return Err(error);
        }
    };
    Worker::new(client, supervisor, &config).run().await;
    Ok(())
}

/// What the poll for inputs brought.
enum News {
    Work(Vec<Input>),
    /// The server says that no more will come.
    Leave,
    /// The server has been away for `ALONE`.
    Away,
}

struct Worker {
    client: Client,
    supervisor: Arc<Supervisor>,
    room: usize,
    grace: Duration,
    cancels: HashMap<String, CancellationToken>,
    /// How many of the inputs still run; the others wait for the server to take their output.
    busy: Arc<AtomicUsize>,
    tasks: JoinSet<Done>,
}

/// An input whose task has ended and whose output the server has, or will never have.
struct Done {
    input_id: String,
}

impl Worker {
    fn new(client: Client, supervisor: Supervisor, config: &WorkerConfig) -> Self {
        Self {
            client,
            supervisor: Arc::new(supervisor),
            room: config.limits.concurrent_tasks.max(1),
            grace: config.limits.grace(),
            cancels: HashMap::new(),
            busy: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        let (news_sender, mut news) = mpsc::channel(1);
        let (room, has_room) = tokio::sync::watch::channel(self.room);
        let _fetching = AbortOnDropHandle::new(tokio::spawn(fetch(
            self.client.clone(),
            has_room,
            news_sender,
        )));
        let (cancel_sender, mut cancelled) = mpsc::channel(16);
        let _beating =
            AbortOnDropHandle::new(tokio::spawn(beat(self.client.clone(), cancel_sender)));
        let mut terminate =
            signal(SignalKind::terminate()).expect("a process may listen to SIGTERM");
        let mut interrupt =
            signal(SignalKind::interrupt()).expect("a process may listen to SIGINT");
        let mut deadline = None;
        let mut leaving = false;
        while !(leaving && self.tasks.is_empty()) {
            tokio::select! {
                Some(news) = news.recv(), if !leaving => match news {
                    News::Work(inputs) => inputs.into_iter().for_each(|input| self.take(input)),
                    News::Leave => leaving = true,
                    News::Away if self.busy.load(Ordering::Relaxed) == 0 => {
                        let undelivered = self.cancels.len();
                        tracing::warn!(undelivered, "the server is away and nothing is running: leaving");
                        return;
                    }
                    News::Away => {}
                },
                Some(input_id) = cancelled.recv() => self.cancel(&input_id).await,
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(done) = done {
                        self.cancels.remove(&done.input_id);
                    }
                }
                _ = terminate.recv() => {
                    leaving = true;
                    deadline.get_or_insert(Instant::now() + self.grace);
                }
                _ = interrupt.recv() => {
                    leaving = true;
                    deadline = Some(Instant::now());
                }
                () = until(deadline) => {
                    deadline = None;
                    tracing::warn!(tasks = self.cancels.len(), "the time of grace is over: ending the tasks");
                    self.cancels.values().for_each(CancellationToken::cancel);
                }
            }
            room.send_replace(if leaving {
                0
            } else {
                self.room.saturating_sub(self.tasks.len())
            });
        }
    }

    fn take(&mut self, input: Input) {
        let cancel = CancellationToken::new();
        self.cancels.insert(input.input_id.clone(), cancel.clone());
        let (client, supervisor, busy) = (
            self.client.clone(),
            Arc::clone(&self.supervisor),
            Arc::clone(&self.busy),
        );
        busy.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(async move {
            let outcome = work(&supervisor, &input, &cancel).await;
            busy.fetch_sub(1, Ordering::Relaxed);
            deliver(&client, &input, outcome).await;
            Done {
                input_id: input.input_id,
            }
        });
    }

    async fn cancel(&mut self, input_id: &str) {
        match self.cancels.get(input_id) {
            Some(cancel) => cancel.cancel(),
            None => {
                if let Err(error) = self.client.put_cancelled(input_id).await {
                    tracing::warn!(input_id, %error, "a cancellation was not confirmed");
                }
            }
        }
    }
}

/// Asks for as many inputs as there is room for. A poll is never given up in the middle: its inputs would be lost.
async fn fetch(
    client: Client,
    mut room: tokio::sync::watch::Receiver<usize>,
    news: mpsc::Sender<News>,
) {
    loop {
        let Ok(free) = room.wait_for(|free| *free > 0).await.map(|free| *free) else {
            return;
        };
        let next = match client
            .get_inputs(u32::try_from(free).unwrap_or(u32::MAX))
            .await
        {
            Ok(Inputs::Work(inputs)) if inputs.is_empty() => continue,
            Ok(Inputs::Work(inputs)) => News::Work(inputs),
            Ok(Inputs::Leave) => News::Leave,
            Err(error) => {
                tracing::warn!(%error, "no inputs to be had");
                tokio::time::sleep(PAUSE).await;
                News::Away
            }
        };
        let leave = matches!(next, News::Leave);
        // What `next` brings takes its room before the next poll asks for more.
        room.mark_unchanged();
        if news.send(next).await.is_err() || leave || room.changed().await.is_err() {
            return;
        }
    }
}

async fn beat(client: Client, cancelled: mpsc::Sender<String>) {
    loop {
        match client.heartbeat().await {
            Ok(input_ids) => {
                for input_id in input_ids {
                    if cancelled.send(input_id).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "container heartbeat failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn work(supervisor: &Supervisor, input: &Input, cancel: &CancellationToken) -> Outcome {
    let ended = match read_workload(input) {
        Ok(text) => work_on(supervisor, &text, cancel).await,
        Err(reason) => Ended::Raised(reason),
    };
    match ended {
        Ended::Returned(value) => match ciborium::Value::serialized(&value) {
            Ok(value) => Outcome::Returned(value),
            Err(error) => raised(error.to_string()),
        },
        Ended::Raised(reason) => raised(reason),
        Ended::Cancelled => Outcome::Cancelled,
    }
}

/// How the work on an input ended, in words that JSON and CBOR both have.
pub(crate) enum Ended {
    Returned(serde_json::Value),
    Raised(String),
    Cancelled,
}

/// Works on the text of one workload.
pub(crate) async fn work_on(
    supervisor: &Supervisor,
    text: &str,
    cancel: &CancellationToken,
) -> Ended {
    match Workload::from_json(text) {
        Ok(Workload::Task(workload)) => run_task(supervisor, *workload, cancel).await,
        Ok(Workload::Callback(workload)) => run_callback(supervisor, &workload, cancel).await,
        Err(error) => Ended::Raised(crate::chain(&error)),
    }
}

async fn run_task(
    supervisor: &Supervisor,
    workload: ExecuteTask,
    cancel: &CancellationToken,
) -> Ended {
    let outcome = supervisor.run_task(workload, cancel.clone()).await;
    if cancel.is_cancelled() {
        return Ended::Cancelled;
    }
    if outcome.state.is_infrastructure_failure() {
        return Ended::Raised(format!(
            "{}: {}",
            outcome.state.as_str(),
            outcome.detail.unwrap_or_default()
        ));
    }
    Ended::Returned(told(&outcome))
}

async fn run_callback(
    supervisor: &Supervisor,
    workload: &RunCallback,
    cancel: &CancellationToken,
) -> Ended {
    let outcome = supervisor.run_callback(workload, cancel.clone()).await;
    if cancel.is_cancelled() {
        return Ended::Cancelled;
    }
    let state = match outcome {
        CallbackOutcome::Ran => "ran",
        CallbackOutcome::Failed { .. } => "failed",
        CallbackOutcome::AlreadyTaken => "already_taken",
        CallbackOutcome::Broken { why } => return Ended::Raised(why),
    };
    Ended::Returned(serde_json::json!({"state": state}))
}

fn raised(reason: String) -> Outcome {
    Outcome::Raised {
        exception: reason.clone(),
        traceback: reason,
    }
}

/// Gives the output back, again and again while the server is away: the worker's main loop decides when to give up.
async fn deliver(client: &Client, input: &Input, outcome: Outcome) {
    while let Err(error) = client.put_output(input, outcome.clone()).await {
        if !error.is_passing() {
            tracing::error!(input_id = input.input_id, %error, "the server does not take an output");
            return;
        }
        tracing::warn!(input_id = input.input_id, %error, "an output waits for the server");
        tokio::time::sleep(PAUSE).await;
    }
}

fn read_workload(input: &Input) -> Result<String, String> {
    let (args, kwargs) = input.arguments().map_err(|error| error.to_string())?;
    let named = kwargs.into_iter().chain(
        args.into_iter()
            .filter_map(|argument| argument.into_map().ok())
            .flatten(),
    );
    let text = named
        .filter_map(|(name, value)| (name.as_text() == Some("workload")).then_some(value))
        .find_map(|value| value.into_text().ok());
    text.ok_or_else(|| "the input has no text `workload`".to_owned())
}

fn told(outcome: &TaskOutcome) -> serde_json::Value {
    let mut told = serde_json::json!({"state": outcome.state.as_str(), "exit": outcome.exit});
    if let Some(detail) = &outcome.detail {
        told["detail"] = detail.as_str().into();
    }
    told
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

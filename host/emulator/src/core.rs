//! The emulator's heart: the state with its journal and what is true only while this process lives, behind one lock.
//!
//! Nothing waits while it holds the lock. What follows from a change but takes time (starting and killing processes) is sent as an
//! [`Order`]; whoever waits for a change listens to a bell.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use modal_api::wire::{DataFormat, GenericResult, generic_result::GenericStatus};
use nix::fcntl::Flock;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use crate::{
    ask::Answers,
    clock::{Clock, Moment},
    config::{FunctionSpec, Tokens},
    contents::Contents,
    deployed::{Deployed, Python},
    journal::Journal,
    logs::Logs,
    record::{Event, InputEnded, InputRetried},
    schedules::Schedule,
    servers::Server,
    state::{Phase, State},
};

#[derive(Debug)]
pub(crate) struct Core {
    inner: Mutex<Inner>,
    pub(crate) clock: Clock,
    pub(crate) socket_dir: PathBuf,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// Rung when something is due earlier than housekeeping thinks.
    pub(crate) alarm: Notify,
    /// Rung when rows have changed that somebody may wait for.
    pub(crate) rows_bell: Notify,
    /// What callers over TCP have to show.
    pub(crate) tokens: Option<Tokens>,
    /// What runs functions that come over the API; none: they are refused.
    pub(crate) python: Option<Python>,
    /// Rung when there are log lines to read, or an app has ended.
    pub(crate) logs_bell: Notify,
    /// Rung when a server has got an address.
    pub(crate) servers_bell: Notify,
    pub(crate) logs: Logs,
    pub(crate) started_at: f64,
    state_dir: PathBuf,
    pub(crate) contents: Contents,
    /// What addresses of files begin with.
    pub(crate) word: String,
    /// Where callers connect over TCP; set once it is known.
    pub(crate) tcp: OnceLock<SocketAddr>,
    _lock: Flock<File>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) journal: Journal,
    pub(crate) functions: HashMap<String, Function>,
    /// One for each container of the state.
    pub(crate) live: HashMap<String, Live>,
    /// When housekeeping will look next.
    pub(crate) next_look: f64,
    /// The kernel's count of memory kills, as seen at the last two looks.
    pub(crate) oom_kills: [u64; 2],
    /// When old rows and files are looked for next.
    pub(crate) clean_at: f64,
    pub(crate) stopping: bool,
    /// Functions that answer HTTP themselves, by their ids.
    pub(crate) servers: HashMap<String, Server>,
    /// What repeated attempts get again.
    pub(crate) answers: Answers,
    /// When somebody last spoke of an ephemeral object.
    pub(crate) heard_of: HashMap<String, f64>,
}

/// Where things are on this machine.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) state_dir: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) contents: Contents,
    pub(crate) logs: Logs,
    pub(crate) python: Option<Python>,
    pub(crate) word: String,
    pub(crate) lock: Flock<File>,
}

/// A deployed function.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) spec_hash: String,
    /// Containers in a row that ended before they asked for an input.
    pub(crate) crashes: u32,
    /// No container is started earlier.
    pub(crate) not_before: f64,
    /// False after a crash loop, until a container has come up: idle ones are not started over and over.
    pub(crate) keeps_warm: bool,
    /// One that came over the API; none: one from this process.
    pub(crate) deployed: Option<Arc<Deployed>>,
    pub(crate) schedule: Option<Schedule>,
}

/// The part of a container that a restart forgets.
#[derive(Debug)]
pub(crate) struct Live {
    /// Rung when there may be an input to take, or a reason to leave.
    pub(crate) work_bell: Arc<Notify>,
    /// Rung when there is a cancellation to tell.
    pub(crate) cancel_bell: Arc<Notify>,
    pub(crate) started_at: f64,
    /// It takes no more inputs: it is for one only and has had it, or was asked to end.
    pub(crate) is_spent: bool,
    /// It has asked for inputs at least once.
    pub(crate) has_asked: bool,
    pub(crate) last_poll: f64,
    /// Requests for inputs that wait now.
    pub(crate) polls: usize,
    pub(crate) idle_since: f64,
    /// Since when it has been asked to leave.
    pub(crate) leaving_since: Option<f64>,
    /// Why it is being killed.
    pub(crate) doom: Option<String>,
    /// The idempotency key of the last answered request for inputs, and what was given.
    pub(crate) delivered: Option<(String, Vec<String>)>,
    /// Given out by an earlier life; whether it arrived is not known.
    pub(crate) in_doubt: Vec<String>,
    /// Cancellations, each with the key of the heartbeat that was told of it.
    pub(crate) cancellations: Vec<(String, Option<String>)>,
    /// Inputs over their time that the container has not given up yet. As long as there are any it gets no new ones.
    pub(crate) overdue: Vec<String>,
    /// What the container said about why it cannot start.
    pub(crate) task_result: Option<GenericResult>,
}

impl Live {
    pub(crate) fn new(now: f64) -> Self {
        Self {
            work_bell: Arc::default(),
            cancel_bell: Arc::default(),
            started_at: now,
            is_spent: false,
            has_asked: false,
            last_poll: now,
            polls: 0,
            idle_since: now,
            leaving_since: None,
            doom: None,
            delivered: None,
            in_doubt: Vec::new(),
            cancellations: Vec::new(),
            overdue: Vec::new(),
            task_result: None,
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving_since.is_some() || self.doom.is_some()
    }
}

/// What takes time and is done outside of the lock.
#[derive(Debug)]
pub(crate) enum Order {
    Start(String),
    Kill(String),
    /// SIGTERM: what runs there may end by itself.
    Terminate(String),
}

/// How an input ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) result: GenericResult,
    pub(crate) data_format: DataFormat,
    /// Zero: take what is known.
    pub(crate) started_at: f64,
}

impl Ending {
    pub(crate) fn new(status: GenericStatus, exception: String) -> Self {
        let result = GenericResult {
            status: status.into(),
            exception,
            ..Default::default()
        };
        Self {
            result,
            data_format: DataFormat::Unspecified,
            started_at: 0.0,
        }
    }
}

impl Core {
    pub(crate) fn new(
        inner: Inner,
        clock: Clock,
        places: Places,
        orders: mpsc::UnboundedSender<Order>,
        tokens: Option<Tokens>,
    ) -> Self {
        let Places {
            state_dir,
            socket_dir,
            contents,
            logs,
            python,
            word,
            lock,
        } = places;
        Self {
            started_at: clock.now(),
            inner: Mutex::new(inner),
            clock,
            socket_dir,
            orders,
            state_dir,
            contents,
            logs,
            logs_bell: Notify::new(),
            servers_bell: Notify::new(),
            python,
            word,
            tcp: OnceLock::new(),
            alarm: Notify::new(),
            rows_bell: Notify::new(),
            tokens,
            _lock: lock,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a file for HTTP clients.
    pub(crate) fn url(&self, path: &str) -> Result<String, Status> {
        let mut address = *self.tcp.get().ok_or_else(|| {
            Status::failed_precondition(
                "files go over HTTP, and this emulator listens on a unix socket alone; hint: give it a TCP address",
            )
        })?;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Ok(format!("http://{address}/{}/{path}", self.word))
    }

    pub(crate) fn blob_path(&self, blob_id: &str) -> PathBuf {
        self.state_dir.join("blobs").join(blob_id)
    }

    pub(crate) fn volumes_dir(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    pub(crate) fn volume_dir(&self, volume_id: &str) -> PathBuf {
        self.volumes_dir().join(volume_id)
    }

    /// Files of a definition, as containers see them.
    pub(crate) fn ground_dir(&self, definition_id: &str) -> PathBuf {
        self.state_dir.join("grounds").join(definition_id)
    }

    /// Where a container's own root is mounted.
    pub(crate) fn root_dir(&self, task_id: &str) -> PathBuf {
        self.state_dir.join("roots").join(task_id)
    }

    pub(crate) fn arguments_path(&self, task_id: &str) -> PathBuf {
        self.scratch_dir().join(task_id)
    }

    /// Makes a container's paths.
    pub(crate) fn script_path(&self, task_id: &str) -> PathBuf {
        self.scratch_dir().join(format!("{task_id}.sh"))
    }

    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    pub(crate) fn output_dir(&self) -> PathBuf {
        self.state_dir.join("output")
    }

    /// Short, because a unix socket's path is; 12 of 62 letters do not meet twice.
    pub(crate) fn socket_path(&self, task_id: &str) -> PathBuf {
        socket_path(&self.socket_dir, task_id)
    }

    pub(crate) fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::debug!("an order came after the end");
        }
    }

    /// Has housekeeping look at this moment at the latest.
    pub(crate) fn look_at(&self, inner: &mut Inner, moment: f64) {
        if moment < inner.next_look {
            inner.next_look = moment;
            self.alarm.notify_one();
        }
    }

    /// Kills a container; its death will be noticed by whoever watches the process.
    pub(crate) fn doom(&self, inner: &mut Inner, task_id: &str, reason: String) {
        let Some(live) = inner.live.get_mut(task_id) else {
            return;
        };
        if live.doom.is_none() {
            tracing::info!(task_id, reason, "killing container");
            live.doom = Some(reason);
            self.order(Order::Kill(task_id.to_owned()));
        }
    }
}

pub(crate) fn socket_path(socket_dir: &std::path::Path, task_id: &str) -> PathBuf {
    socket_dir.join(&task_id[task_id.len().saturating_sub(12)..])
}

impl Inner {
    /// Writes an event down and applies it. If it cannot be written nothing has changed.
    pub(crate) fn commit(&mut self, event: Event) -> io::Result<()> {
        self.journal.append(event.clone())?;
        self.state.apply(event);
        Ok(())
    }

    /// For what has happened anyhow, whether or not it can be written down.
    pub(crate) fn note(&mut self, event: Event) {
        if let Err(error) = self.journal.append(event.clone()) {
            tracing::error!(%error, ?event, "journal could not be written: a restart will not know this");
        }
        self.state.apply(event);
    }

    /// Ends a waiting or running input.
    pub(crate) fn end_input(
        &mut self,
        input_id: &str,
        ending: Ending,
        at: Moment,
    ) -> io::Result<()> {
        let Some((event, task_id)) = self.conclusion(input_id, ending, at) else {
            return Ok(());
        };
        self.commit(event)?;
        self.rest(&task_id, at.now);
        Ok(())
    }

    /// Ends an input for a reason that stands whether or not it can be written down.
    pub(crate) fn note_ended(&mut self, input_id: &str, ending: Ending, at: Moment) {
        let Some((event, task_id)) = self.conclusion(input_id, ending, at) else {
            return;
        };
        self.note(event);
        self.rest(&task_id, at.now);
    }

    /// What becomes of an input whose try has ended so, and the container that it was in: the next try, or the end.
    fn conclusion(&self, input_id: &str, ending: Ending, at: Moment) -> Option<(Event, String)> {
        let input = self.state.inputs.get(input_id)?;
        let (task_id, known_start) = match &input.phase {
            Phase::Ended(_) => return None,
            Phase::Waiting { .. } => (String::new(), 0.0),
            Phase::Running {
                task_id,
                started_at,
                ..
            } => (task_id.clone(), *started_at),
        };
        let is_cancelled = matches!(
            input.phase,
            Phase::Running {
                cancelled: true,
                ..
            }
        );
        let call = self.state.calls.get(&input.function_call_id)?;
        let function = self.functions.get(&call.function_id);
        if let Some(retries) = function.map(|function| &function.spec.retries)
            && input.retry_count < retries.count
            && is_worth_a_retry(ending.result.status())
            && !task_id.is_empty()
            && !is_cancelled
        {
            let event = InputRetried {
                input_id: input_id.to_owned(),
                retry_count: input.retry_count + 1,
                not_before: at.now + retries.delay_after(input.retry_count).as_secs_f64(),
            };
            return Some((Event::InputRetried(event), task_id));
        }
        let container = task_id.clone();
        let event = InputEnded {
            input_id: input_id.to_owned(),
            result: Some(ending.result),
            data_format: ending.data_format.into(),
            task_id,
            started_at: if ending.started_at > 0.0 {
                ending.started_at
            } else {
                known_start
            },
            ended_at: at.wall,
        };
        Some((Event::InputEnded(event), container))
    }

    fn rest(&mut self, task_id: &str, now: f64) {
        let is_idle = self
            .state
            .containers
            .get(task_id)
            .is_some_and(|container| container.running.is_empty());
        if let Some(live) = self.live.get_mut(task_id).filter(|_| is_idle) {
            live.idle_since = now;
        }
    }
}

/// The function's own fault, or bad luck: not what somebody wanted, and not what would be the same again.
fn is_worth_a_retry(status: GenericStatus) -> bool {
    match status {
        GenericStatus::Failure
        | GenericStatus::Timeout
        | GenericStatus::InternalFailure
        | GenericStatus::MemoryManagerEviction
        | GenericStatus::MemoryThrashingEviction
        | GenericStatus::KernelOomKill => true,
        GenericStatus::Unspecified
        | GenericStatus::Success
        | GenericStatus::Terminated
        | GenericStatus::InitFailure
        | GenericStatus::IdleTimeout => false,
    }
}

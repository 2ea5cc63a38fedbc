//! The warm Python process that forks a child for each task: started here, asked here, started again when it died.
//!
//! Requests and answers are packets of JSON over a socket that is the process's standard input; a task's sockets travel beside
//! the request. This file knows nothing of what a child then says over its sockets.

use std::{
    collections::{BTreeMap, HashMap},
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, PoisonError},
    time::Duration,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::Interest,
    net::UnixStream,
    process::{Child, Command},
    sync::{Mutex, mpsc, oneshot},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{Error, SupervisorKind};

const WARM_UP: Duration = Duration::from_secs(90);
const ANSWER: Duration = Duration::from_secs(30);
const LARGEST_PACKET: usize = 1 << 20;

/// How to start the process.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) python: PathBuf,
    pub(crate) script: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) kind: SupervisorKind,
}

/// What a new child shall be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(crate) enum Role<'a> {
    /// A task runner that we supervise, over four sockets.
    Modalflow,
    /// A callback, over four sockets; `runs` says by which of Airflow's ways.
    Callback { runs: &'a str },
    /// Airflow's own supervisor for this workload.
    Airflow { workload: &'a str },
}

/// A forked task.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) pid: i32,
    /// Fails when the fork server died; the kernel then kills the child.
    pub(crate) ended: oneshot::Receiver<Ended>,
}

/// How a forked task ended.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(crate) struct Ended {
    /// The exit code, or the signal's number below zero.
    pub(crate) code: i32,
    pub(crate) max_rss_kib: u64,
    pub(crate) cpu_seconds: f64,
}

/// The handle: cheap to ask, safe to ask from many tasks.
#[derive(Debug)]
pub(crate) struct ForkServer {
    launch: Launch,
    running: Mutex<Option<Running>>,
    /// What children have to change in the environment that they are forked with: a file of JSON, as it may be large.
    changes: std::sync::Mutex<Option<Arc<OwnedFd>>>,
}

#[derive(Debug)]
struct Running {
    requests: mpsc::Sender<Request>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Request {
    role: serde_json::Value,
    sockets: Vec<OwnedFd>,
    answer: oneshot::Sender<Result<Forked, Error>>,
}

impl ForkServer {
    /// Starts the process and waits until it is warm.
    pub(crate) async fn start(launch: Launch) -> Result<Self, Error> {
        let server = Self {
            running: Mutex::new(None),
            changes: std::sync::Mutex::default(),
            launch,
        };
        server.requests().await?;
        Ok(server)
    }

    /// Forks a child that owns `sockets`. A dead fork server is started anew first.
    pub(crate) async fn fork(
        &self,
        role: &Role<'_>,
        mut sockets: Vec<OwnedFd>,
    ) -> Result<Forked, Error> {
        let requests = self.requests().await?;
        let (answer, answered) = oneshot::channel();
        let mut role = serde_json::to_value(role).expect("a role has a JSON form");
        if let Some(changes) = self.changes() {
            sockets.push(changes.try_clone().map_err(Error::Environment)?);
            role["changes"] = true.into();
        }
        requests
            .send(Request {
                role,
                sockets,
                answer,
            })
            .await
            .map_err(|_| Error::ForkServerGone)?;
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(forked)) => forked,
            Ok(Err(_)) => Err(Error::ForkServerGone),
            Err(_) => Err(Error::ForkServerSilent(ANSWER.as_secs())),
        }
    }

    /// Children that are forked from now on have this environment.
    pub(crate) fn adopt(&self, environment: &BTreeMap<String, String>) -> std::io::Result<()> {
        let changes = changes(&self.launch.environment, environment);
        let file = match changes.is_empty() {
            true => None,
            false => {
                let file = memfd_create("environment", MFdFlags::MFD_CLOEXEC)?;
                let mut file = std::fs::File::from(file);
                std::io::Write::write_all(&mut file, &serde_json::to_vec(&changes)?)?;
                Some(Arc::new(OwnedFd::from(file)))
            }
        };
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    fn changes(&self) -> Option<Arc<OwnedFd>> {
        let changes = self.changes.lock();
        changes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn requests(&self) -> Result<mpsc::Sender<Request>, Error> {
        let mut running = self.running.lock().await;
        if let Some(running) = running
            .as_ref()
            .filter(|running| !running.requests.is_closed())
        {
            return Ok(running.requests.clone());
        }
        let (process, control) = spawn(&self.launch).await?;
        let (requests, inbox) = mpsc::channel(64);
        let serving = tokio::spawn(Serving::new(process, control).run(inbox));
        *running = Some(Running {
            requests: requests.clone(),
            _serving: AbortOnDropHandle::new(serving),
        });
        Ok(requests)
    }
}

/// What makes one environment of the other; null for what is to go.
fn changes<'a>(
    from: &'a BTreeMap<String, String>,
    to: &'a BTreeMap<String, String>,
) -> BTreeMap<&'a str, Option<&'a str>> {
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    let gone = gone.map(|name| (name.as_str(), None));
    let new = to
        .iter()
        .filter(|(name, value)| from.get(*name) != Some(*value));
    let new = new.map(|(name, value)| (name.as_str(), Some(value.as_str())));
    gone.chain(new).collect()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", tag = "event")]
enum Event {
    Ready {
        pid: i32,
        sdk: String,
        threads: u32,
        missing: Vec<String>,
    },
    Unusable {
        error: String,
    },
    Started {
        id: u64,
        pid: i32,
    },
    Refused {
        id: u64,
        error: String,
    },
    Exited {
        id: u64,
        #[serde(flatten)]
        ended: Ended,
    },
}

async fn spawn(launch: &Launch) -> Result<(Child, Control), Error> {
    let failed = |source: std::io::Error| Error::StartForkServer {
        python: launch.python.clone(),
        source,
    };
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )
    .map_err(|error| failed(error.into()))?;
    nix::fcntl::fcntl(
        &theirs,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
    )
    .map_err(|error| failed(error.into()))?;
    let kind = match launch.kind {
        SupervisorKind::Modalflow => "modalflow",
        SupervisorKind::Airflow => "airflow",
    };
    let process = Command::new(&launch.python)
        .arg(&launch.script)
        .arg(kind)
        .env_clear()
        .envs(&launch.environment)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let control = Control::new(ours).map_err(failed)?;
    let first = tokio::time::timeout(WARM_UP, control.receive())
        .await
        .map_err(|_| Error::ForkServerSilent(WARM_UP.as_secs()))?;
    match first.map_err(failed)? {
        Some(Event::Ready {
            pid,
            sdk,
            threads,
            missing,
        }) => {
            tracing::info!(pid, sdk, "fork server is warm");
            for module in missing {
                tracing::warn!(module, "fork server could not import a module in advance");
            }
            if threads > 1 {
                tracing::warn!(
                    threads,
                    "fork server has threads: something that it imports starts them, and a fork may hang"
                );
            }
            Ok((process, control))
        }
        Some(Event::Unusable { error }) => Err(Error::ForkServerUnusable(error)),
        Some(other) => Err(Error::ForkServerUnusable(format!(
            "it said {other:?} first"
        ))),
        None => Err(Error::ForkServerUnusable(
            "it ended while it warmed up".to_owned(),
        )),
    }
}

#[derive(Debug)]
struct Control(UnixStream);

impl Control {
    /// A socket of packets is read and written like one of bytes.
    fn new(socket: OwnedFd) -> std::io::Result<Self> {
        UnixStream::from_std(socket.into()).map(Self)
    }

    /// The next packet; `None` when the process closed its end.
    async fn receive(&self) -> std::io::Result<Option<Event>> {
        let mut packet = vec![0; 64 * 1024];
        let size = self
            .0
            .async_io(Interest::READABLE, || {
                recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty())
                    .map_err(std::io::Error::from)
            })
            .await?;
        if size == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&packet[..size])
            .map(Some)
            .map_err(std::io::Error::other)
    }

    async fn send(&self, packet: &[u8], sockets: &[OwnedFd]) -> std::io::Result<()> {
        let fds: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let beside = if fds.is_empty() { &[] } else { &rights[..] };
        let content = [IoSlice::new(packet)];
        self.0
            .async_io(Interest::WRITABLE, || {
                sendmsg::<()>(
                    self.0.as_raw_fd(),
                    &content,
                    beside,
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                )
                .map_err(std::io::Error::from)
            })
            .await?;
        Ok(())
    }
}

/// The one task that reads and writes the control socket.
struct Serving {
    process: Child,
    control: Control,
    last_id: u64,
    asked: HashMap<u64, oneshot::Sender<Result<Forked, Error>>>,
    running: HashMap<u64, (i32, oneshot::Sender<Ended>)>,
}

impl Serving {
    fn new(process: Child, control: Control) -> Self {
        Self {
            process,
            control,
            last_id: 0,
            asked: HashMap::new(),
            running: HashMap::new(),
        }
    }

    /// Serves until the process or the last handle is gone. Dropping the tables tells everybody who waits.
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                event = self.control.receive() => match event {
                    Ok(Some(event)) => self.note(event),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(%error, "fork server sent what cannot be read");
                        break;
                    }
                },
                request = inbox.recv() => match request {
                    Some(request) => self.ask(request).await,
                    None => break,
                },
            }
        }
        let status = tokio::time::timeout(Duration::from_secs(1), self.process.wait()).await;
        if !self.running.is_empty() || !self.asked.is_empty() {
            tracing::error!(
                ?status,
                tasks = self.running.len(),
                "fork server ended with its tasks"
            );
        }
        for (pid, _) in self.running.values() {
            // The kernel kills the children; what they started themselves is in their process groups.
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(*pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }

    async fn ask(&mut self, request: Request) {
        self.last_id += 1;
        let mut packet = request.role;
        packet["id"] = self.last_id.into();
        let packet = packet.to_string();
        if packet.len() > LARGEST_PACKET / 8 {
            let _ = request.answer.send(Err(Error::Fork(format!(
                "the workload has {} bytes",
                packet.len()
            ))));
            return;
        }
        match self.control.send(packet.as_bytes(), &request.sockets).await {
            Ok(()) => {
                self.asked.insert(self.last_id, request.answer);
            }
            Err(error) => {
                let _ = request.answer.send(Err(Error::Fork(error.to_string())));
            }
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Started { id, pid } => {
                let (ended, receiver) = oneshot::channel();
                self.running.insert(id, (pid, ended));
                if let Some(asked) = self.asked.remove(&id) {
                    let _ = asked.send(Ok(Forked {
                        pid,
                        ended: receiver,
                    }));
                }
            }
            Event::Refused { id, error } => {
                if let Some(asked) = self.asked.remove(&id) {
                    let _ = asked.send(Err(Error::Fork(error)));
                }
            }
            Event::Exited { id, ended } => {
                if let Some((_, waiting)) = self.running.remove(&id) {
                    let _ = waiting.send(ended);
                }
            }
            Event::Ready { .. } | Event::Unusable { .. } => {
                tracing::warn!("fork server greets twice")
            }
        }
    }
}

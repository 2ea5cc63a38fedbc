//! Start, deploy, stop.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    Config, Error, FunctionSpec, Listen, MAX_SOCKET_PATH, Stop,
    apps::AppRow,
    ask::Answers,
    clock::Clock,
    contents::Contents,
    core::{Core, Function, Inner, Order, Places, socket_path},
    front, housekeeping, ids,
    journal::{self, Journal},
    lifecycle,
    logs::Logs,
    process, python,
    recorded::Recorded,
    rows::{Change, Row, Table},
    session::{self, environment_name},
    state::State,
    survivors, variants, web,
};

/// How long answers under way may take after a stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Below the state folder; what they hold is nobody else's.
const OWN_FOLDERS: [&str; 8] = [
    "blobs",
    "volumes",
    "grounds",
    "roots",
    "containers",
    "contents",
    "logs",
    "output",
];
const PRIVATE: u32 = 0o700;

/// A running emulator. Dropping it without [`Emulator::stop`] is a crash: containers live on and wait for the next one.
#[derive(Debug)]
pub struct Emulator {
    core: Arc<Core>,
    halt: CancellationToken,
    servers: JoinSet<()>,
    lifecycle: JoinSet<()>,
    tcp: Option<std::net::SocketAddr>,
}

impl Emulator {
    /// Reads the journal, takes surviving containers back, and listens.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_by(config, Clock::start()).await
    }

    async fn start_by(config: Config, clock: Clock) -> Result<Self, Error> {
        check_listen(&config.listen)?;
        make_private_dir(&config.state_dir)?;
        make_private_dir(&config.socket_dir)?;
        check_socket_path(&socket_path(&config.socket_dir, &ids::task()))?;
        let lock = lock(&config.state_dir)?;

        let python = match &config.python {
            None => None,
            Some(path) => Some(python::look_at(path).await?),
        };
        let path = config.state_dir.join("journal");
        let state = recover(&path, clock.wall())?;
        let journal =
            Journal::create(&path, state.events().into_iter()).map_err(Error::file(&path))?;
        let (orders, received) = mpsc::unbounded_channel();
        let mut inner = Inner {
            answers: Answers::of(&state.rows),
            state,
            journal,
            functions: Default::default(),
            live: Default::default(),
            next_look: f64::MAX,
            oom_kills: [process::kernel_oom_kills(); 2],
            clean_at: 0.0,
            stopping: false,
            servers: Default::default(),
            heard_of: Default::default(),
        };
        let known = survivors::adopt(&mut inner, clock.now());
        let word = word(&mut inner)?;
        for name in OWN_FOLDERS {
            let path = config.state_dir.join(name);
            make_private_dir(&path)?;
            // Also one that was made when the machine's habits still held for it.
            let private = fs::Permissions::from_mode(PRIVATE);
            fs::set_permissions(&path, private).map_err(Error::file(&path))?;
        }
        let places = Places {
            contents: Contents::open(&config.state_dir).map_err(Error::file(&config.state_dir))?,
            logs: Logs::open(&config.state_dir).map_err(Error::file(&config.state_dir))?,
            python,
            state_dir: config.state_dir,
            socket_dir: config.socket_dir,
            word,
            lock,
        };
        let core = Arc::new(Core::new(inner, clock, places, orders, config.tokens));

        let halt = CancellationToken::new();
        let mut servers = JoinSet::new();
        let tcp = listen(&core, &config.listen, &halt, &mut servers).await?;
        activate_apps(&core);
        core.open_servers();
        let adopted = survivors::take_back(&core, known).await;
        let mut lifecycle = JoinSet::new();
        lifecycle.spawn(lifecycle::run(
            core.clone(),
            adopted,
            received,
            halt.clone(),
        ));
        servers.spawn(until_halt(housekeeping::run(core.clone()), halt.clone()));
        servers.spawn(web::run(core.clone(), halt.clone()));
        Ok(Self {
            core,
            halt,
            servers,
            lifecycle,
            tcp,
        })
    }

    /// The TCP address, with the port that was found if 0 was asked for.
    #[must_use]
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        self.tcp
    }

    /// What is deployed over the API.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        Recorded::of(&self.core)
    }

    /// Deploys a function, or replaces its deployment; containers of an older one finish their inputs and leave. The id depends on
    /// environment, app and name alone.
    pub async fn deploy(&self, spec: FunctionSpec) -> Result<String, Error> {
        check_spec(&spec)?;
        fs::create_dir_all(&spec.log_dir).map_err(Error::file(&spec.log_dir))?;
        let function_id = ids::function(
            environment_name(&spec.environment),
            &spec.app_name,
            &spec.name,
        );
        let spec_hash = spec_hash(&spec);
        let core = &self.core;
        let mut guard = core.lock();
        let inner = &mut *guard;
        if inner
            .functions
            .get(&function_id)
            .is_some_and(|known| known.spec_hash == spec_hash)
        {
            return Ok(function_id);
        }
        let mut change = Change::default();
        session::add_environment(inner, &spec.environment, core.clock.wall(), &mut change);
        if !change.is_empty() {
            inner.commit(change.into_event()).map_err(Error::Journal)?;
        }
        let function = Function {
            spec: Arc::new(spec),
            spec_hash,
            crashes: 0,
            not_before: 0.0,
            keeps_warm: true,
            deployed: None,
            schedule: None,
        };
        inner.functions.insert(function_id.clone(), function);
        for live in inner.live.values() {
            live.work_bell.notify_waiters();
        }
        core.dispatch(inner, &function_id);
        let mut change = Change::default();
        variants::follow(core, inner, &function_id, &mut change);
        if !change.is_empty() {
            inner.commit(change.into_event()).map_err(Error::Journal)?;
        }
        // Limits of this function count from now on.
        let now = core.clock.now();
        core.look_at(inner, now);
        Ok(function_id)
    }

    /// Ends this life of the emulator. Calls that wait are kept for the next one in any case.
    pub async fn stop(mut self, stop: Stop) -> Result<(), Error> {
        {
            let mut inner = self.core.lock();
            inner.stopping = true;
            for live in inner.live.values() {
                live.work_bell.notify_waiters();
            }
        }
        if let Stop::Terminate { grace } = stop {
            self.terminate(grace).await;
        }
        self.halt.cancel();
        let all = async {
            while self.servers.join_next().await.is_some() {}
            while self.lifecycle.join_next().await.is_some() {}
        };
        if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.servers.shutdown().await;
        self.lifecycle.shutdown().await;
        Ok(())
    }

    /// What runs ends as TERMINATED: first the word, then the deed, so that a container's own last output comes too late.
    async fn terminate(&self, grace: Duration) {
        use crate::core::Ending;
        use modal_api::wire::generic_result::GenericStatus;
        let task_ids: Vec<String> = {
            let mut guard = self.core.lock();
            let inner = &mut *guard;
            let at = self.core.clock.moment();
            let running: Vec<_> = inner
                .state
                .containers
                .values()
                .flat_map(|container| container.running.iter().cloned())
                .collect();
            for input_id in running {
                inner.note_ended(
                    &input_id,
                    Ending::new(
                        GenericStatus::Terminated,
                        "the emulator was stopped".to_owned(),
                    ),
                    at,
                );
            }
            inner.state.containers.keys().cloned().collect()
        };
        for task_id in &task_ids {
            process::signal(task_id, Signal::SIGTERM);
        }
        let is_empty = || self.core.lock().state.containers.is_empty();
        let end = tokio::time::Instant::now() + grace;
        while !is_empty() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for task_id in task_ids {
            self.core.order(Order::Kill(task_id));
        }
        let end = tokio::time::Instant::now() + LAST_ANSWERS;
        while !is_empty() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Requests that wait hold on to the state: without this the next emulator in this process would find it in use.
impl Drop for Emulator {
    fn drop(&mut self) {
        self.halt.cancel();
    }
}

async fn until_halt(task: impl Future<Output = ()>, halt: CancellationToken) {
    tokio::select! {
        () = task => {}
        () = halt.cancelled() => {}
    }
}

/// The word that addresses of files begin with: the same in every life, so that an upload goes on after a restart.
fn word(inner: &mut Inner) -> Result<String, Error> {
    if let Some(row) = inner.state.rows.get::<WordRow>("") {
        return Ok(row.word);
    }
    let row = WordRow {
        word: ids::secret(),
    };
    let mut change = Change::default();
    change.put("", &row);
    inner.commit(change.into_event()).map_err(Error::Journal)?;
    Ok(row.word)
}

#[derive(Clone, PartialEq, prost::Message)]
struct WordRow {
    #[prost(string, tag = "1")]
    word: String,
}

impl Row for WordRow {
    const TABLE: Table = Table::Word;
}

fn lock(state_dir: &Path) -> Result<Flock<File>, Error> {
    let path = state_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Error::InUse(state_dir.to_owned()))
}

fn recover(path: &Path, wall: f64) -> Result<State, Error> {
    let history = journal::read(path).map_err(Error::file(path))?;
    if history.torn_bytes > 0 {
        // Kept, in case it was more than a record cut off by a crash.
        let copy = path.with_extension("torn");
        fs::copy(path, &copy).map_err(Error::file(&copy))?;
        tracing::warn!(bytes = history.torn_bytes, copy = %copy.display(), "the journal's end is no whole record: cut off");
    }
    let mut state = State::default();
    for event in history.events {
        state.apply(event);
    }
    state.forget_ended_before(wall - housekeeping::KEPT_FOR);
    Ok(state)
}

/// Puts to work what was deployed in an earlier life.
fn activate_apps(core: &Core) {
    let mut guard = core.lock();
    let inner = &mut *guard;
    let rows = inner.state.rows.scan::<AppRow>(b"");
    let app_ids: Vec<String> = rows
        .map(|(id, _)| String::from_utf8_lossy(id).into_owned())
        .collect();
    for app_id in app_ids {
        core.activate_app(inner, &app_id);
    }
}

async fn listen(
    core: &Arc<Core>,
    listen: &Listen,
    halt: &CancellationToken,
    servers: &mut JoinSet<()>,
) -> Result<Option<std::net::SocketAddr>, Error> {
    if let Some(path) = &listen.unix {
        let listener = bind_unix(path).map_err(|source| Error::Listen {
            address: path.display().to_string(),
            source,
        })?;
        let server = Server::builder()
            .add_routes(front::routes(core, None, halt.clone()))
            .serve_with_incoming_shutdown(
                UnixListenerStream::new(listener),
                halt.clone().cancelled_owned(),
            );
        servers.spawn(report(server));
    }
    let Some(address) = listen.tcp else {
        return Ok(None);
    };
    let failed = |source: io::Error| Error::Listen {
        address: address.to_string(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let found = listener.local_addr().map_err(failed)?;
    // Nobody else sets it.
    let _ = core.tcp.set(found);
    let server = Server::builder()
        .tcp_nodelay(true)
        .accept_http1(true)
        .add_routes(front::tcp_routes(core, halt.clone()))
        .serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            halt.clone().cancelled_owned(),
        );
    servers.spawn(report(server));
    Ok(Some(found))
}

async fn report(server: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "serving callers failed");
    }
}

/// A socket that nobody answers at is left over from a crash; one that somebody answers at is somebody's.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    lifecycle::bind(path)
}

fn make_private_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(path)
        .map_err(Error::file(path))
}

fn check_listen(listen: &Listen) -> Result<(), Error> {
    if let Some(path) = &listen.unix {
        check_socket_path(path)?;
    }
    match (&listen.unix, listen.tcp) {
        (None, None) => Err(Error::NoListener),
        (_, Some(address)) if !address.ip().is_loopback() && !listen.beyond_loopback => {
            Err(Error::NotLoopback(address))
        }
        _ => Ok(()),
    }
}

fn check_socket_path(path: &Path) -> Result<(), Error> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        Err(Error::SocketPathTooLong(PathBuf::from(path)))
    } else {
        Ok(())
    }
}

fn check_spec(spec: &FunctionSpec) -> Result<(), Error> {
    let refuse = |reason| {
        Err(Error::Spec(
            format!("{}.{}", spec.app_name, spec.name),
            reason,
        ))
    };
    if spec.command.is_empty() {
        return refuse("its command is empty");
    }
    if spec.max_containers == 0 || spec.max_concurrent_inputs == 0 {
        return refuse("it may have no container, or no input in one");
    }
    if spec.min_containers > spec.max_containers {
        return refuse("min_containers is above max_containers");
    }
    Ok(())
}

/// Tells deployments apart without keeping what they hold.
pub(crate) fn spec_hash(spec: &FunctionSpec) -> String {
    Sha256::digest(format!("{spec:?}"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use modal_api::wire::{self, modal_client_client::ModalClientClient};
    use tonic::transport::Endpoint;

    use super::Emulator;
    use crate::{Config, FunctionSpec, Listen, Stop, clock::Clock};

    const SLEPT: f64 = 8.0 * 3600.0;

    #[tokio::test]
    async fn what_clients_are_told_goes_by_the_wall_clock_after_a_sleep() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.sock");
        let config = Config {
            state_dir: folder.path().join("state"),
            socket_dir: folder.path().join("s"),
            listen: Listen {
                unix: Some(path.clone()),
                tcp: None,
                beyond_loopback: false,
            },
            tokens: None,
            python: None,
        };
        let emulator = Emulator::start_by(config, Clock::after_sleep(SLEPT))
            .await
            .unwrap();
        let command = vec!["sleep".into(), "600".into()];
        let here = folder.path().to_owned();
        let spec = FunctionSpec::new("app", "work", command, here.clone(), here);
        let function_id = emulator.deploy(spec).await.unwrap();
        let address = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
        let mut stub = ModalClientClient::new(address.connect().await.unwrap());

        let created = stub.app_create(wire::AppCreateRequest::default()).await;
        let app_id = created.unwrap().into_inner().app_id;
        let mut publication = wire::AppPublishRequest {
            app_id: app_id.clone(),
            name: "deployed".to_owned(),
            ..Default::default()
        };
        publication.set_app_state(wire::AppState::Deployed);
        let published = stub.app_publish(publication).await.unwrap().into_inner();
        let history = wire::AppDeploymentHistoryRequest { app_id };
        let history = stub.app_deployment_history(history).await.unwrap();
        let apps = stub.app_list(wire::AppListRequest::default()).await;
        let call = wire::FunctionMapRequest {
            function_id,
            pipelined_inputs: vec![wire::FunctionPutInputsItem {
                input: Some(wire::FunctionInput {
                    args_oneof: Some(wire::function_input::ArgsOneof::Args(Default::default())),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let function_call_id = stub
            .function_map(call)
            .await
            .unwrap()
            .into_inner()
            .function_call_id;
        let cancel = wire::FunctionCallCancelRequest {
            function_call_id: function_call_id.clone(),
            ..Default::default()
        };
        stub.function_call_cancel(cancel).await.unwrap();
        let outputs = wire::FunctionGetOutputsRequest {
            function_call_id: function_call_id.clone(),
            ..Default::default()
        };
        let outputs = stub.function_get_outputs(outputs).await.unwrap();
        let info = wire::FunctionCallGetInfoRequest {
            function_call_id,
            ..Default::default()
        };
        let info = stub.function_call_get_info(info).await.unwrap();

        let told = [
            published.deployed_at,
            history.into_inner().app_deployment_histories[0].deployed_at,
            apps.unwrap().into_inner().apps[0].created_at,
            outputs.into_inner().outputs[0].output_created_at,
            info.into_inner().info.unwrap().created_at,
        ];
        let wall = Clock::start().now();
        assert!(
            told.iter()
                .all(|moment| (wall - moment).abs() < SLEPT / 2.0),
            "{told:?} at {wall}"
        );
        let grace = std::time::Duration::ZERO;
        emulator.stop(Stop::Terminate { grace }).await.unwrap();
    }
}

//! Modal on this machine: the emulator behind its socket, and the Execution API that its containers report to.
//! One process of an environment at a time holds them; who finds them taken is a guest and only calls.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use emulator::{Emulator, FunctionSpec, Listen, Stop};
use environment::{Environment, Purpose, airflow_settings, python};
use execution_api::{ApiState, Limits, Secrets};
use nix::fcntl::{Flock, FlockArg};
use supervisor::{PluginChoice, PluginSettings, SupervisorKind, WorkerConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::executor::RUN_TASK;
use crate::house::{self, House};
use crate::plugins;
use crate::tick::CALLBACKS_AT_ONCE;

/// Requests in progress have this long when the API stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// An idle worker stays warm for this long.
const SCALEDOWN: Duration = Duration::from_secs(120);

/// What the worker's Python consists of.
const PYTHON_FILES: &[(&str, &str)] = &[
    ("fork_server.py", include_str!("../python/fork_server.py")),
    (
        "task_protocol.py",
        include_str!("../python/task_protocol.py"),
    ),
];

/// Why Modal can't be served on this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    House(#[from] house::Error),
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Emulator(#[from] emulator::Error),
    #[error(transparent)]
    Plugin(#[from] plugin_host::Error),
    #[error(transparent)]
    Key(#[from] execution_api::UnusableKey),
    #[error("{what}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// The held lock: while it lives, no other process serves this environment.
pub(crate) struct Seat(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// Takes the seat, or answers `None` when another process has it.
pub(crate) fn take_seat(environment: &Environment) -> Result<Option<Seat>, Error> {
    let lock = seat(environment)?;
    Ok(Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .ok()
        .map(Seat))
}

/// The same, also when somebody only looks whether it is taken.
pub(crate) async fn take_seat_in_time(environment: &Environment) -> Result<Option<Seat>, Error> {
    for _ in 0..10 {
        if let Some(seat) = take_seat(environment)? {
            return Ok(Some(seat));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}

/// Whether some process serves this environment now. Who asks for that is no such process to others who ask.
pub(crate) fn is_served(environment: &Environment) -> Result<bool, Error> {
    Ok(Flock::lock(seat(environment)?, FlockArg::LockSharedNonblock).is_err())
}

fn seat(environment: &Environment) -> Result<File, Error> {
    let path = environment.run_dir().join("serve.lock");
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| Error::Io {
            what: "open the lock of serve",
            source,
        })
}

/// The running emulator and Execution API.
pub(crate) struct Local {
    emulator: Emulator,
    api: JoinHandle<()>,
    closing: CancellationToken,
    _seat: Seat,
}

impl Local {
    /// Serves the environment on this machine. `wake` asks for a tick.
    pub(crate) async fn start(
        house: &mut House,
        seat: Seat,
        wake: Arc<dyn Fn() + Send + Sync>,
        progress: &dyn environment::Progress,
    ) -> Result<Self, Error> {
        let (listener, moved_from) = house.environment.listen_for_execution_api()?;
        if let Some(old) = moved_from {
            progress.note(&format!(
                "port {old} is taken; the Execution API is now at {}",
                house.environment.execution_api_url()
            ));
        }
        let closing = CancellationToken::new();
        let api = serve_api(house, listener, wake, closing.clone()).await?;
        let emulator = start_emulator(&house.environment, progress).await?;
        Ok(Self {
            emulator,
            api,
            closing,
            _seat: seat,
        })
    }

    /// Stops serving. Running tasks go on in their containers and report to the next host.
    pub(crate) async fn leave(self) -> Result<(), Error> {
        self.emulator.stop(Stop::Leave).await?;
        self.closing.cancel();
        // Requests in progress end or are repeated by their worker.
        let _ = tokio::time::timeout(DRAIN, self.api).await;
        Ok(())
    }
}

pub(crate) async fn serve_api(
    house: &House,
    listener: std::net::TcpListener,
    wake: Arc<dyn Fn() + Send + Sync>,
    closing: CancellationToken,
) -> Result<JoinHandle<()>, Error> {
    let io = |what| move |source| Error::Io { what, source };
    listener
        .set_nonblocking(true)
        .map_err(io("set up the Execution API's socket"))?;
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(io("set up the Execution API's socket"))?;
    let host = plugins::host(&house.environment)?;
    let xcoms = plugins::xcom_backend(&host, &house.environment).await?;
    let state = ApiState {
        pool: house.pool.clone(),
        tokens: house.tokens.clone(),
        xcoms,
        wake,
        secrets: Secrets::new(&house.environment.secrets().fernet_key)?,
        limits: Limits {
            max_xcom_bytes: house.environment.config().xcom_max_bytes,
            callback_timeout: house.environment.config().callback_timeout,
            ..Limits::default()
        },
        spool_dir: house.environment.run_dir().join("spool"),
        dags: Arc::clone(&house.serialized),
        timetables: Arc::clone(&house.timetables) as Arc<dyn execution_api::ManualDates>,
    };
    let router = axum::Router::new().nest("/execution", execution_api::router(state));
    Ok(tokio::spawn(async move {
        use axum::serve::ListenerExt;
        // One packet an answer: with Nagle's algorithm each would wait 40 ms for the client's delayed ACK.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(closing.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the Execution API ended");
        }
    }))
}

async fn start_emulator(
    environment: &Environment,
    progress: &dyn environment::Progress,
) -> Result<Emulator, Error> {
    let emulator = Emulator::start(emulator_config(environment)?).await?;
    emulator
        .deploy(run_task(environment, progress).await?)
        .await?;
    Ok(emulator)
}

fn emulator_config(environment: &Environment) -> Result<emulator::Config, Error> {
    let socket = environment.socket(house::MODAL_SOCKET)?;
    Ok(emulator::Config {
        state_dir: environment.root().join("modal"),
        socket_dir: socket
            .parent()
            .map_or_else(|| environment.run_dir(), PathBuf::from),
        listen: Listen {
            unix: Some(socket),
            tcp: None,
            beyond_loopback: false,
        },
        tokens: None,
        python: None,
    })
}

/// Ends the containers that an earlier host left to themselves, with the tasks in them.
pub(crate) async fn end_containers(environment: &Environment, _seat: &Seat) -> Result<(), Error> {
    if environment.root().join("modal").exists() {
        let emulator = Emulator::start(emulator_config(environment)?).await?;
        emulator
            .stop(Stop::Terminate {
                grace: Duration::from_secs(2),
            })
            .await?;
    }
    Ok(())
}

/// The function that runs task instances: this binary as a worker, warm, many tasks at once.
async fn run_task(
    environment: &Environment,
    progress: &dyn environment::Progress,
) -> Result<FunctionSpec, Error> {
    let config = environment.config();
    let program = std::env::current_exe().map_err(|source| Error::Io {
        what: "find this program's own file",
        source,
    })?;
    let worker_config = write_worker_config(environment, progress).await?;
    let mut spec = FunctionSpec::new(
        &house::app_name(environment.name()),
        RUN_TASK,
        vec![program.into(), "worker".into()],
        environment.volume(),
        environment.run_dir().join("containers"),
    );
    spec.env = passed_on();
    spec.env
        .insert(supervisor::CONFIG_VARIABLE.into(), worker_config.into());
    spec.max_containers = 1;
    // A task that has reported its end may still run its callbacks while its successor starts.
    // Callbacks come on top, so that they take no task's place.
    spec.max_concurrent_inputs = (config.parallelism * 2 + CALLBACKS_AT_ONCE) as usize;
    // Our own timeout is the task's; the call's is only the net below it.
    spec.timeout = config.task_timeout;
    spec.scaledown_window = SCALEDOWN;
    Ok(spec)
}

/// Variables and connections of Airflow that the user has set for tasks, and the level of our own log.
fn passed_on() -> BTreeMap<OsString, OsString> {
    std::env::vars_os()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                name.starts_with("AIRFLOW_VAR_")
                    || name.starts_with("AIRFLOW_CONN_")
                    || name == "MODALFLOW_LOG"
            })
        })
        .collect()
}

async fn write_worker_config(
    environment: &Environment,
    progress: &dyn environment::Progress,
) -> Result<PathBuf, Error> {
    let config = worker_config(environment, progress).await?;
    let path = environment.run_dir().join("worker.json");
    let text = serde_json::to_vec_pretty(&config).expect("a config of strings and numbers");
    tokio::fs::write(&path, text)
        .await
        .map_err(|source| Error::Io {
            what: "write the worker's settings",
            source,
        })?;
    Ok(path)
}

/// What a worker of this environment must know; no credential is among it.
pub(crate) async fn worker_config(
    environment: &Environment,
    progress: &dyn environment::Progress,
) -> Result<WorkerConfig, Error> {
    let python = python::ensure(environment.home(), progress).await?;
    let files = python::materialise(environment.home(), PYTHON_FILES)?;
    Ok(WorkerConfig {
        python: python.python,
        python_files: files,
        environment: airflow_settings(environment, Purpose::Worker),
        execution_api_url: environment.execution_api_url(),
        volume: environment.volume(),
        dags: environment.dags_dir(),
        bundle_name: dags::BUNDLE.to_owned(),
        supervisor: match environment.config().supervisor {
            environment::Supervisor::Modalflow => SupervisorKind::Modalflow,
            environment::Supervisor::Airflow => SupervisorKind::Airflow,
        },
        plugins: PluginSettings {
            xcom_backend: PluginChoice {
                settings: plugins::xcom_settings(environment),
                ..PluginChoice::default()
            },
            log_handler: PluginChoice {
                settings: serde_json::json!({}),
                ..PluginChoice::default()
            },
            cache: Some(environment.home().plugins_cache()),
            spool: Some(environment.run_dir().join("spool")),
        },
        limits: supervisor::Limits {
            xcom_max_bytes: environment.config().xcom_max_bytes,
            ..supervisor::Limits::default()
        },
    })
}

//! The supervisor: one for many tasks.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plugin_host::{Grants, HostConfig, LogHandler, PluginHost, Source, XcomBackend};
use tokio_util::sync::CancellationToken;

use crate::{
    CallbackOutcome, Durable, Error, ExecuteTask, Fate, PluginChoice, RunCallback, SupervisorKind,
    TaskOutcome, WorkerConfig,
    callback::{self, Bundle},
    client::ExecutionApi,
    fork_server::{ForkServer, Launch, Role},
    runners::Runners,
    task::{self, Shared},
    vigil,
};

/// Runs tries of tasks, as many at once as it is asked to.
pub struct Supervisor {
    shared: Box<Shared>,
    way: Way,
}

/// Who watches over the task runners.
enum Way {
    Own(Runners),
    Airflows,
}

/// The plugins that keep what tasks leave behind.
pub struct Plugins {
    pub xcom_backend: Arc<dyn XcomBackend>,
    pub log_handler: Arc<dyn LogHandler>,
}

impl Plugins {
    /// Loads the plugins that the configuration names, or the built-in ones.
    pub async fn load(config: &WorkerConfig) -> Result<Self, Error> {
        let settings = &config.plugins;
        let cache_dir = settings
            .cache
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join("modalflow-plugins"));
        let host = PluginHost::new(HostConfig {
            cache_dir,
            spool_dir: spool(config),
        })
        .map_err(Error::Plugins)?;
        let xcom = load(
            &host,
            &settings.xcom_backend,
            "volume-xcom",
            ("xcom", config.volume.join("xcom")),
        );
        let logs = load(
            &host,
            &settings.log_handler,
            "file-task-handler",
            ("logs", config.volume.join("logs")),
        );
        let (xcom, logs) = futures::try_join!(xcom, logs).map_err(Error::Plugins)?;
        Ok(Self {
            xcom_backend: xcom.xcom_backend().map_err(Error::Plugins)?,
            log_handler: logs.log_handler().map_err(Error::Plugins)?,
        })
    }
}

/// A fork server that is warm, for one supervisor after another.
pub(crate) struct Warm {
    fork_server: Arc<ForkServer>,
    kind: SupervisorKind,
    sensitive_names: String,
    hostname: String,
}

impl Warm {
    pub(crate) async fn start(config: &WorkerConfig) -> Result<Self, Error> {
        let hostname = unique_hostname(None);
        let launch = Launch {
            python: config.python.clone(),
            script: config.python_files.join("fork_server.py"),
            environment: config.python_environment(&hostname),
            kind: config.supervisor,
        };
        let sensitive_names = launch
            .environment
            .get("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES")
            .cloned()
            .unwrap_or_default();
        Ok(Self {
            fork_server: Arc::new(ForkServer::start(launch).await?),
            kind: config.supervisor,
            sensitive_names,
            hostname,
        })
    }

    /// Has tasks run in an environment made of this one: in another container than where the fork server was started, Secrets
    /// may say something else.
    pub(crate) fn adopt(
        &self,
        config: &WorkerConfig,
        environment: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let environment = config.python_environment_on(environment, &self.hostname);
        self.fork_server
            .adopt(&environment)
            .map_err(Error::Environment)
    }

    /// A supervisor in a container that may be another one than where the fork server was started.
    pub(crate) fn supervisor(
        &self,
        config: &WorkerConfig,
        plugins: Plugins,
        container: Option<&str>,
        durable: Option<Arc<dyn Durable>>,
    ) -> Result<Supervisor, Error> {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid())
            .ok()
            .flatten();
        let way = match self.kind {
            SupervisorKind::Modalflow => Way::Own(Runners::new(Arc::clone(&self.fork_server))),
            SupervisorKind::Airflow => Way::Airflows,
        };
        let shared = Shared {
            fork_server: Arc::clone(&self.fork_server),
            bundle: Bundle {
                name: config.bundle_name.clone(),
                path: config.dags.clone(),
            },
            api: ExecutionApi::new(&config.execution_api_url)?.durably(durable),
            xcom_backend: plugins.xcom_backend,
            log_handler: plugins.log_handler,
            spool: spool(config),
            limits: Arc::new(config.limits.clone()),
            sensitive_names: self.sensitive_names.clone(),
            hostname: match container {
                Some(_) => unique_hostname(container),
                None => self.hostname.clone(),
            },
            user: user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name),
        };
        Ok(Supervisor {
            shared: Box::new(shared),
            way,
        })
    }
}

impl Supervisor {
    /// Loads the plugins and warms the fork server up; takes a second or two.
    pub async fn start(config: &WorkerConfig) -> Result<Self, Error> {
        let plugins = Plugins::load(config).await?;
        Self::with_plugins(config, plugins).await
    }

    /// Starts with plugins that are loaded already.
    pub async fn with_plugins(config: &WorkerConfig, plugins: Plugins) -> Result<Self, Error> {
        Warm::start(config)
            .await?
            .supervisor(config, plugins, None, None)
    }

    /// Runs one callback to its end and reports it. Cancelling ends it; then too there is an outcome.
    pub async fn run_callback(
        &self,
        workload: &RunCallback,
        cancel: CancellationToken,
    ) -> CallbackOutcome {
        let outcome = callback::run(&self.shared, workload, &cancel).await;
        tracing::info!(
            callback_id = workload.callback_id,
            ?outcome,
            "callback ended"
        );
        outcome
    }

    /// Runs one try to its end and reports it. Cancelling ends the task; then too there is an outcome.
    pub async fn run_task(&self, workload: ExecuteTask, cancel: CancellationToken) -> TaskOutcome {
        let (dag_id, run_id, task_id) = (
            workload.ti.dag_id.clone(),
            workload.ti.run_id.clone(),
            workload.ti.task_id.clone(),
        );
        let (map_index, try_number) = (workload.ti.map_index, workload.ti.try_number);
        let outcome = match &self.way {
            Way::Own(runners) => task::run(&self.shared, runners, workload, &cancel).await,
            Way::Airflows => delegate(&self.shared, &workload, &cancel).await,
        };
        tracing::info!(
            dag_id,
            run_id,
            task_id,
            map_index,
            try_number,
            state = outcome.state.as_str(),
            exit = outcome.exit,
            detail = outcome.detail,
            "task ended"
        );
        outcome
    }
}

/// Lets Airflow's own supervisor do it: reports and log are its business.
async fn delegate(
    shared: &Shared,
    workload: &ExecuteTask,
    cancel: &CancellationToken,
) -> TaskOutcome {
    let json = serde_json::to_string(workload).expect("a workload came from JSON");
    let escalation = shared.limits.escalation();
    let mut forked = match shared
        .fork_server
        .fork(&Role::Airflow { workload: &json }, Vec::new())
        .await
    {
        Ok(forked) => forked,
        Err(error) => {
            return TaskOutcome::without_process(Fate::NotStarted, crate::chain(&error));
        }
    };
    let ended = tokio::select! {
        ended = &mut forked.ended => ended.ok(),
        () = cancel.cancelled() => {
            // Airflow's supervisor hands SIGINT on to its runner. If that is not enough, both are killed.
            let runners = children_of(forked.pid);
            let ended = vigil::kill(forked.pid, Signal::SIGINT, &mut forked.ended, escalation).await;
            runners.into_iter().for_each(|runner| vigil::signal_group(runner, Signal::SIGKILL));
            ended
        }
    };
    TaskOutcome {
        state: Fate::Delegated,
        exit: ended.map(|ended| ended.code),
        detail: ended.is_none().then(|| "the fork server ended".to_owned()),
        max_rss_kib: ended.map(|ended| ended.max_rss_kib),
        cpu_seconds: ended.map(|ended| ended.cpu_seconds),
    }
}

async fn load(
    host: &PluginHost,
    choice: &PluginChoice,
    builtin: &'static str,
    store: (&str, PathBuf),
) -> Result<plugin_host::Plugin, plugin_host::Error> {
    let source = choice
        .component
        .clone()
        .map_or(Source::Builtin(builtin), Source::File);
    let mut grants = Grants::default();
    if choice.stores.is_empty() {
        grants = grants.with_store(store.0, store.1);
    }
    for (name, folder) in &choice.stores {
        grants = grants.with_store(name, folder);
    }
    let settings = match &choice.settings {
        serde_json::Value::Null => serde_json::json!({}),
        settings => settings.clone(),
    };
    host.load(source, settings, grants).await
}

fn spool(config: &WorkerConfig) -> PathBuf {
    config
        .plugins
        .spool
        .clone()
        .unwrap_or_else(std::env::temp_dir)
}

/// Containers share host names and have equal pids; the server tells tries apart by this name.
fn unique_hostname(container: Option<&str>) -> String {
    let container = container
        .map(ToOwned::to_owned)
        .or_else(|| std::env::var("MODAL_TASK_ID").ok())
        .filter(|id| !id.is_empty());
    let name = container
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .unwrap_or_else(|| "worker".to_owned());
    format!("{}-{:08x}", name.trim(), rand::random::<u32>())
}

fn children_of(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .filter(|child| kill(Pid::from_raw(*child), None).is_ok())
        .collect()
}

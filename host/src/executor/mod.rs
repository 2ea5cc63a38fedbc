//! Starting task instances as Modal function calls, and learning the fate of each. No SQL and no scheduling here:
//! the tick hands over intents and takes observations.

mod fate;
mod functions;
mod variant;
mod watch;

use std::collections::HashSet;
use std::time::Duration;

use ciborium::Value;
use futures::StreamExt;
use metadata::dispatch::OpenCall;
use modal_api::{CallStatus, Client, FetchedStatus, Latest};
use model::ExecutorConfig;
use uuid::Uuid;

pub use fate::Fate;
pub(crate) use functions::Functions;
pub use functions::{Deployed, function_name};
pub(crate) use variant::resources;
pub use watch::{Observation, Watch};

/// Fewer open calls are asked one by one.
const WORTH_A_SURVEY: usize = 8;
/// Spawns that are under way at once.
const SPAWNS_AT_ONCE: usize = 32;

/// The function that runs one task instance or one callback.
pub const RUN_TASK: &str = "run_task";

/// What can go wrong between us and Modal's API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find function {name} of app {app}")]
    Function {
        app: String,
        name: String,
        #[source]
        source: modal_api::Error,
    },
    #[error("executor_config: {}\nhint: {}", .0.problem, .0.hint)]
    ExecutorConfig(model::executor_config::Problem),
    #[error(
        "executor_config: there is no image {name:?}; {}\nhint: write how it is made under modal.images in config.yaml, then `modalflow-host create`",
        known_images(known)
    )]
    Image { name: String, known: Vec<String> },
    #[error("get what executor_config asks for")]
    Variant(#[source] modal_api::Error),
    #[error("survey the calls of a function")]
    Survey(#[source] modal_api::Error),
    #[error("start a function call")]
    Spawn(#[source] modal_api::Error),
    #[error("learn the fate of call {call_id}")]
    Fate {
        call_id: String,
        #[source]
        source: modal_api::Error,
    },
}

impl Error {
    /// What Modal said, if it is Modal's.
    pub(crate) fn modal(&self) -> Option<&modal_api::Error> {
        match self {
            Self::Function { source, .. }
            | Self::Variant(source)
            | Self::Survey(source)
            | Self::Spawn(source)
            | Self::Fate { source, .. } => Some(source),
            Self::ExecutorConfig(_) | Self::Image { .. } => None,
        }
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.modal().is_some_and(modal_api::Error::is_passing)
    }

    /// Whether the task asks for what can't be had: then it fails, and nothing else does.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ExecutorConfig(_) | Self::Image { .. } => true,
            // A token that is wrong, say, is nothing that the task asked for.
            Self::Variant(source) => {
                source.is_not_found()
                    || matches!(
                        source,
                        modal_api::Error::Invalid(_) | modal_api::Error::Name { .. }
                    )
            }
            Self::Function { .. } | Self::Survey(_) | Self::Spawn(_) | Self::Fate { .. } => false,
        }
    }
}

/// What a task could have named instead.
pub(crate) fn known_images(known: &[String]) -> String {
    if known.is_empty() {
        "none was deployed".to_owned()
    } else {
        format!("deployed are {}", known.join(", "))
    }
}

/// Starts a call of a function that runs workloads; the same key again gives the same call.
pub(crate) async fn start(
    client: &Client,
    function_id: &str,
    workload: &str,
    key: Uuid,
) -> Result<String, modal_api::Error> {
    let payload = Value::Map(vec![(
        Value::Text("workload".to_owned()),
        Value::Text(workload.to_owned()),
    )]);
    let args = Value::Array(vec![payload]);
    let call = client
        .spawn(function_id, args, Value::Map(Vec::new()), key)
        .await?;
    Ok(call.function_call_id)
}

/// The caller's side of one environment's app. Cheap to share.
#[derive(Debug)]
pub struct Executor {
    client: Client,
    functions: Functions,
}

/// A workload on its way: the dispatch id is the idempotency key of its spawn.
#[derive(Debug)]
pub struct Workload {
    pub dispatch_id: Uuid,
    /// Airflow's `ExecuteTask` as JSON text, or our `RunCallback`.
    pub json: String,
    /// As the task instance's row has it; null: nothing.
    pub executor_config: serde_json::Value,
}

impl Executor {
    /// Calls what is deployed there.
    #[must_use]
    pub fn new(client: Client, deployed: Deployed) -> Self {
        Self {
            client,
            functions: Functions::new(deployed, RUN_TASK),
        }
    }

    /// Starts the workloads; answers each one's call id or why it could not be started.
    pub async fn spawn(&self, workloads: Vec<Workload>) -> Vec<(Workload, Result<String, Error>)> {
        futures::stream::iter(workloads)
            .map(|workload| async move {
                let started = self.spawn_one(&workload).await;
                (workload, started)
            })
            .buffer_unordered(SPAWNS_AT_ONCE)
            .collect()
            .await
    }

    async fn spawn_one(&self, workload: &Workload) -> Result<String, Error> {
        let config =
            ExecutorConfig::read(&workload.executor_config).map_err(Error::ExecutorConfig)?;
        let mut started = self.call(workload, &config).await;
        if matches!(&started, Err(Error::Spawn(error)) if error.is_not_found()) {
            // A new deployment has new ids.
            self.functions.forget().await;
            started = self.call(workload, &config).await;
        }
        started
    }

    async fn call(&self, workload: &Workload, config: &ExecutorConfig) -> Result<String, Error> {
        let function = self.functions.of(&self.client, config).await?;
        start(
            &self.client,
            &function.function_id,
            &workload.json,
            workload.dispatch_id,
        )
        .await
        .map_err(Error::Spawn)
    }

    /// Starts another function of the app, one that takes no arguments.
    ///
    /// # Errors
    /// [`Error::Function`], [`Error::Spawn`]
    pub async fn call_plainly(&self, function: &str, key: Uuid) -> Result<String, Error> {
        let function = self.functions.named(&self.client, function).await?;
        let (args, kwargs) = (Value::Array(Vec::new()), Value::Map(Vec::new()));
        self.client
            .spawn(&function.function_id, args, kwargs, key)
            .await
            .map(|call| call.function_call_id)
            .map_err(Error::Spawn)
    }

    /// Whether one of another function's newest calls has not begun yet.
    ///
    /// # Errors
    /// [`Error::Function`], [`Error::Survey`]
    pub(crate) async fn is_call_waiting(&self, function: &str, newest: u32) -> Result<bool, Error> {
        let function = self.functions.named(&self.client, function).await?;
        let calls = self
            .client
            .calls_fetch(&function.function_id, Latest::Count(newest))
            .await
            .map_err(Error::Survey)?;
        Ok(calls
            .iter()
            .any(|call| call.status == FetchedStatus::Pending))
    }

    /// The fate of a call, waited for up to `wait`; `None` while it goes on.
    ///
    /// # Errors
    /// [`Error::Fate`]
    pub async fn fate(&self, call_id: &str, wait: Duration) -> Result<Option<Fate>, Error> {
        match self.client.outputs(call_id, wait).await {
            Ok(CallStatus::Pending) => Ok(None),
            Ok(CallStatus::Ended(result)) => Ok(Some(Fate::of(&result))),
            Ok(CallStatus::Expired) => Ok(Some(Fate::Unknown)),
            Err(source) => Err(Error::Fate {
                call_id: call_id.to_owned(),
                source,
            }),
        }
    }

    /// Leaves out the calls that are certainly at work still: one question about all of them, whose answer is a hint to ask
    /// less. Without an answer none is left out.
    pub(crate) async fn doubtful(&self, calls: Vec<OpenCall>) -> Vec<OpenCall> {
        if calls.len() < WORTH_A_SURVEY {
            return calls;
        }
        match self.at_work(calls.len()).await {
            Ok(at_work) => calls
                .into_iter()
                .filter(|call| !at_work.contains(&call.call_id))
                .collect(),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "no survey of calls"
                );
                calls
            }
        }
    }

    /// Of the newest calls, variants' among them, those that wait or run.
    async fn at_work(&self, open: usize) -> Result<HashSet<String>, Error> {
        let function = self
            .functions
            .of(&self.client, &ExecutorConfig::default())
            .await?;
        // What ended in the meantime stands among them.
        let most = u32::try_from(open * 2 + 100).unwrap_or(u32::MAX);
        let latest = self
            .client
            .calls_fetch(&function.function_id, Latest::Count(most))
            .await
            .map_err(Error::Survey)?;
        Ok(latest
            .into_iter()
            .filter(|call| matches!(call.status, FetchedStatus::Pending | FetchedStatus::Running))
            .map(|call| call.function_call_id)
            .collect())
    }

    /// Ends a call whose try is over. The worker tells the task and leaves.
    ///
    /// # Errors
    /// [`Error::Fate`]
    pub async fn cancel(&self, call_id: &str) -> Result<(), Error> {
        self.client
            .cancel(call_id, false)
            .await
            .map_err(|source| Error::Fate {
                call_id: call_id.to_owned(),
                source,
            })
    }
}

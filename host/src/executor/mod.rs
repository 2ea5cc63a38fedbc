//! Starting task instances as Modal function calls, and learning the fate of each. No SQL and no scheduling here:
//! the tick hands over intents and takes observations.

mod fate;
mod watch;

use std::time::Duration;

use ciborium::Value;
use futures::StreamExt;
use modal_api::{CallStatus, Client, Credentials, FunctionHandle, ServerUrl};
use tokio::sync::RwLock;
use uuid::Uuid;

pub use fate::Fate;
pub use watch::{Observation, Watch};

/// Spawns that are under way at once.
const SPAWNS_AT_ONCE: usize = 32;

/// The function that runs one task instance or one callback.
pub const RUN_TASK: &str = "run_task";

/// What can go wrong between us and Modal's API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find function {RUN_TASK} of app {app}")]
    Function {
        app: String,
        #[source]
        source: modal_api::Error,
    },
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
    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Function { source, .. } | Self::Spawn(source) | Self::Fate { source, .. } => {
                source.is_passing()
            }
        }
    }
}

/// The caller's side of one environment's app. Cheap to share.
#[derive(Debug)]
pub struct Executor {
    client: Client,
    app: String,
    function: RwLock<Option<FunctionHandle>>,
}

/// A workload on its way: the dispatch id is the idempotency key of its spawn.
#[derive(Debug)]
pub struct Workload {
    pub dispatch_id: Uuid,
    /// Airflow's `ExecuteTask` as JSON text, or our `RunCallback`.
    pub json: String,
}

impl Executor {
    /// The connection is made with the first call.
    ///
    /// # Errors
    /// [`Error::Function`] when the address can't be used.
    pub fn new(url: ServerUrl, app: &str) -> Result<Self, Error> {
        let client =
            Client::connect(url, Credentials::local()).map_err(|source| Error::Function {
                app: app.to_owned(),
                source,
            })?;
        Ok(Self {
            client,
            app: app.to_owned(),
            function: RwLock::new(None),
        })
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
        let function_id = self.function_id().await?;
        let payload = Value::Map(vec![(
            Value::Text("workload".to_owned()),
            Value::Text(workload.json.clone()),
        )]);
        let spawned = self
            .client
            .spawn(
                &function_id,
                Value::Array(vec![payload]),
                Value::Map(Vec::new()),
                workload.dispatch_id,
            )
            .await;
        match spawned {
            Ok(call) => Ok(call.function_call_id),
            Err(source) => {
                // A new deployment has new ids: look it up again next time.
                *self.function.write().await = None;
                Err(Error::Spawn(source))
            }
        }
    }

    async fn function_id(&self) -> Result<String, Error> {
        if let Some(handle) = &*self.function.read().await {
            return Ok(handle.function_id.clone());
        }
        let handle = self
            .client
            .function_get(&self.app, RUN_TASK, "")
            .await
            .map_err(|source| Error::Function {
                app: self.app.clone(),
                source,
            })?;
        let function_id = handle.function_id.clone();
        *self.function.write().await = Some(handle);
        Ok(function_id)
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

//! The calls of one deployed function: started as its tasks ask for, awaited, cancelled, read. Nothing is remembered here but ids that
//! Modal gave.

use std::time::Duration;

use chrono::{DateTime, Utc};
use modal_api::{CallStatus, Client, Config, LogFilter};
use model::ExecutorConfig;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{Error, variant};
use crate::executor::{self, Deployed, Functions};

/// Which function, where, and what it was deployed with.
#[derive(Debug, Clone)]
pub struct Function {
    pub name: String,
    pub deployed: Deployed,
}

#[derive(Debug)]
pub(super) struct Calls {
    config: Config,
    client: OnceCell<Client>,
    functions: Functions,
}

impl Calls {
    pub(super) fn new(config: Config, function: Function) -> Self {
        Self {
            config,
            client: OnceCell::new(),
            functions: Functions::new(function.deployed, &function.name),
        }
    }

    /// Starts a call. The same key again gives the same call.
    pub(super) async fn spawn(
        &self,
        key: Uuid,
        payload: &str,
        executor_config: &str,
    ) -> Result<String, Error> {
        let config = variant::read(executor_config)?;
        let mut started = self.call(key, payload, &config).await;
        if matches!(&started, Err(Error::Spawn(error)) if error.is_not_found()) {
            // A new deployment has new ids.
            self.functions.forget().await;
            started = self.call(key, payload, &config).await;
        }
        started
    }

    async fn call(
        &self,
        key: Uuid,
        payload: &str,
        config: &ExecutorConfig,
    ) -> Result<String, Error> {
        let client = self.client().await?;
        let function = self.functions.of(client, config).await?;
        executor::start(client, &function.function_id, payload, key)
            .await
            .map_err(Error::Spawn)
    }

    /// The result of a call, waited for up to `wait`.
    pub(super) async fn result(&self, call_id: &str, wait: Duration) -> Result<CallStatus, Error> {
        let outputs = self.client().await?.outputs(call_id, wait).await;
        outputs.map_err(|source| Error::call(call_id, source))
    }

    pub(super) async fn cancel(&self, call_id: &str) -> Result<(), Error> {
        let cancelled = self.client().await?.cancel(call_id, false).await;
        cancelled.map_err(|source| Error::call(call_id, source))
    }

    /// The newest lines that a call printed, the oldest first.
    pub(super) async fn log_lines(
        &self,
        call_id: &str,
        now: DateTime<Utc>,
        most: u32,
    ) -> Result<Vec<String>, Error> {
        let client = self.client().await?;
        // A process that only reads logs starts nothing that would find out that the app is another one now.
        let function = self.functions.base(client).await?;
        let filter = LogFilter {
            function_call_id: call_id,
            ..LogFilter::default()
        };
        let fetched = client
            .logs_fetch(&function.app_id, filter, now - LOG_SPAN, now, most)
            .await;
        let pieces = fetched.map_err(|source| Error::call(call_id, source))?;
        let text: String = pieces.into_iter().map(|piece| piece.text).collect();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Whether Modal lets us in and has the function: its id.
    pub(super) async fn check(&self) -> Result<String, Error> {
        let client = self.client().await?;
        client.hello().await.map_err(Error::Modal)?;
        self.functions.forget().await;
        let function = self
            .functions
            .of(client, &ExecutorConfig::default())
            .await?;
        Ok(function.function_id)
    }

    /// Modal's environment that has the function.
    pub(super) fn environment(&self) -> &str {
        self.functions.environment()
    }

    pub(super) async fn client(&self) -> Result<&Client, Error> {
        self.client
            .get_or_try_init(|| Client::open(&self.config))
            .await
            .map_err(Error::Modal)
    }
}

/// Modal keeps a day of logs.
const LOG_SPAN: chrono::TimeDelta = chrono::TimeDelta::days(1);

//! The calls of one deployed function: started as its tasks ask for, awaited, cancelled, read. Nothing is remembered here but ids that
//! Modal gave.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use modal_api::{CallStatus, Client, Config, FunctionHandle, LogFilter};
use model::ExecutorConfig;
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use super::{Error, variant};
use crate::executor::{self, Deployed};

/// Which function, where, and what it was deployed with.
#[derive(Debug, Clone)]
pub struct Function {
    pub name: String,
    pub deployed: Deployed,
}

#[derive(Debug)]
pub(super) struct Calls {
    config: Config,
    function: Function,
    client: OnceCell<Client>,
    /// The function and its variants, by what tasks ask for. A new deployment makes them useless.
    found: Mutex<HashMap<String, FunctionHandle>>,
}

impl Calls {
    pub(super) fn new(config: Config, function: Function) -> Self {
        Self {
            config,
            function,
            client: OnceCell::new(),
            found: Mutex::default(),
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
            self.found.lock().await.clear();
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
        let function_id = self.handle(config).await?.function_id;
        let client = self.client().await?;
        executor::start(client, &function_id, payload, key)
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
        let app_id = self.handle(&ExecutorConfig::default()).await?.app_id;
        let filter = LogFilter {
            function_call_id: call_id,
            ..LogFilter::default()
        };
        let fetched = self
            .client()
            .await?
            .logs_fetch(&app_id, filter, now - LOG_SPAN, now, most)
            .await;
        let pieces = fetched.map_err(|source| Error::call(call_id, source))?;
        let text: String = pieces.into_iter().map(|piece| piece.text).collect();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Whether Modal lets us in and has the function: its id.
    pub(super) async fn check(&self) -> Result<String, Error> {
        let hello = self.client().await?.hello().await;
        hello.map_err(Error::Modal)?;
        self.found.lock().await.clear();
        let handle = self.handle(&ExecutorConfig::default()).await?;
        Ok(handle.function_id)
    }

    /// Modal's environment that has the function.
    pub(super) fn environment(&self) -> &str {
        &self.function.deployed.environment
    }

    pub(super) async fn client(&self) -> Result<&Client, Error> {
        self.client
            .get_or_try_init(|| Client::open(&self.config))
            .await
            .map_err(Error::Modal)
    }

    async fn handle(&self, config: &ExecutorConfig) -> Result<FunctionHandle, Error> {
        let wanted = if config.is_empty() {
            String::new()
        } else {
            format!("{config:?}")
        };
        // Held on purpose: a hundred tasks that want the same variant bind it once.
        let mut found = self.found.lock().await;
        if let Some(handle) = found.get(&wanted) {
            return Ok(handle.clone());
        }
        let deployed = &self.function.deployed;
        let client = self.client().await?;
        let mut handle = self.function(client, config.image.as_deref()).await?;
        let config = ExecutorConfig {
            image: None,
            ..config.clone()
        };
        if !config.is_empty() {
            let variant = executor::variant(client, deployed, &config)
                .await
                .map_err(Error::Variant)?;
            handle = client
                .function_bind(&handle.function_id, &variant, &deployed.environment)
                .await
                .map_err(Error::Variant)?;
        }
        found.insert(wanted, handle.clone());
        Ok(handle)
    }

    /// The function as it was deployed, on one of its images.
    async fn function(
        &self,
        client: &Client,
        image: Option<&str>,
    ) -> Result<FunctionHandle, Error> {
        let Deployed {
            app, environment, ..
        } = &self.function.deployed;
        let get = async |image: Option<&str>| {
            let name = executor::function_name(&self.function.name, image);
            client.function_get(app, &name, environment).await
        };
        match (get(image).await, image) {
            (Err(error), Some(image)) if error.is_not_found() => {
                // Whether there is a deployment at all is told apart.
                let base = get(None).await.map_err(Error::Modal)?;
                Err(Error::Image {
                    name: image.to_owned(),
                    known: self.images(client, &base.app_id).await?,
                })
            }
            (handle, _) => handle.map_err(Error::Modal),
        }
    }

    /// The images that were deployed, by their names.
    async fn images(&self, client: &Client, app_id: &str) -> Result<Vec<String>, Error> {
        let layout = client.app_layout(app_id).await.map_err(Error::Modal)?;
        let prefix = executor::function_name(&self.function.name, Some(""));
        let mut names: Vec<String> = layout
            .functions
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }
}

/// Modal keeps a day of logs.
const LOG_SPAN: chrono::TimeDelta = chrono::TimeDelta::days(1);

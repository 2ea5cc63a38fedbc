//! The connection that all operations share, and who we are to the server. The operations stand in a file a subject.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{Config, Credentials, Error, ServerUrl, call::Caller, connect, http::Http};

/// Cheap to clone; all clones share one HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) caller: Caller,
    pub(crate) http: Http,
    /// What large arguments each function seen takes inside a message.
    pub(crate) limits: Arc<Mutex<HashMap<String, u64>>>,
    pub(crate) client_version: String,
}

/// What the server says of itself and us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The newest image builder's version.
    pub image_builder_version: String,
}

impl Client {
    /// Makes a client. The connection is made with the first call, and made again when it is lost.
    #[expect(clippy::needless_pass_by_value, reason = "secrets move in")]
    pub fn connect(url: ServerUrl, credentials: Credentials) -> Result<Self, Error> {
        let caller = Caller::new(&url, &credentials)?;
        Self::over(caller, &credentials)
    }

    /// Connects to the first of the configured servers that answers.
    ///
    /// # Errors
    /// [`Error::NoToken`] before anything is sent, [`Error::NoServer`] after about a minute without a connection.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let away = config.servers.iter().any(|url| !url.is_local());
        if away
            && config.credentials.token.is_none()
            && config.credentials.kind == crate::ClientKind::Client
        {
            return Err(Error::NoToken {
                servers: config.server_list(),
            });
        }
        let (url, channel) = connect::connect(config).await?;
        let caller = Caller::over(channel, &url, &config.credentials)?
            .throttled_for(config.max_throttle_wait);
        Self::over(caller, &config.credentials)
    }

    fn over(caller: Caller, credentials: &Credentials) -> Result<Self, Error> {
        Ok(Self {
            caller,
            http: Http::new(),
            limits: Arc::default(),
            client_version: credentials.client_version.clone(),
        })
    }

    /// Asks whether the server accepts us.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]: bad token; [`Error::VersionRefused`]: our version is.
    pub async fn hello(&self) -> Result<Hello, Error> {
        let answer = self
            .caller
            .short((), async |mut stub, request| {
                stub.client_hello(request).await
            })
            .await
            .map_err(|error| match error {
                Error::Conflict(message) => self.caller.version_refused(&message),
                other => other,
            })?;
        self.caller.warnings.add(&answer.warning);
        self.caller.warnings.add_all(&answer.server_warnings);
        Ok(Hello {
            image_builder_version: answer.image_builder_version,
        })
    }

    /// What the server wanted the user to know since the last time this was asked: each sentence once.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<String> {
        self.caller.warnings.take()
    }

    /// The version of the official client that we claim to be.
    #[must_use]
    pub fn client_version(&self) -> &str {
        &self.client_version
    }
}

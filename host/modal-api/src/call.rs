//! One logical call: the same request and idempotency key in every attempt, fresh headers and a limit for each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::Channel,
};
use uuid::Uuid;

use crate::{
    Credentials, Error, MAX_MESSAGE_BYTES, ServerUrl,
    retry::{Attempts, Policy},
    warnings::Warnings,
    wire::{self, modal_client_client::ModalClientClient},
};

/// A channel with the headers that all calls share.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    stub: ModalClientClient<Channel>,
    headers: MetadataMap,
    client_version: String,
    throttle_limit: Option<Duration>,
    pub(crate) warnings: Warnings,
}

impl Caller {
    pub(crate) fn new(url: &ServerUrl, credentials: &Credentials) -> Result<Self, Error> {
        Self::over(url.channel()?, url, credentials)
    }

    /// Over a channel that leads to `url`.
    pub(crate) fn over(
        channel: Channel,
        url: &ServerUrl,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        let stub = ModalClientClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self {
            stub,
            headers: credentials.metadata(url)?,
            client_version: credentials.client_version.clone(),
            throttle_limit: None,
            warnings: Warnings::default(),
        })
    }

    /// How long a server may put a call off; see `MODAL_MAX_THROTTLE_WAIT`.
    pub(crate) fn throttled_for(mut self, limit: Option<Duration>) -> Self {
        self.throttle_limit = limit;
        self
    }

    /// A short call with a key of its own.
    pub(crate) async fn short<Q, A, F>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: AsyncFn(ModalClientClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    {
        self.call(Policy::SHORT, Uuid::new_v4(), message, send)
            .await
    }

    /// A call that may take minutes, with a key of its own.
    pub(crate) async fn long<Q, A, F>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: AsyncFn(ModalClientClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    {
        self.call(Policy::LONG, Uuid::new_v4(), message, send).await
    }

    /// Opens a stream. What comes on it is never asked for again by itself: the caller knows from where to go on.
    pub(crate) async fn stream<Q, A, F>(&self, message: Q, send: F) -> Result<Streaming<A>, Error>
    where
        Q: Clone,
        F: AsyncFn(
            ModalClientClient<Channel>,
            Request<Q>,
        ) -> Result<Response<Streaming<A>>, Status>,
    {
        // The limit is one for the opening alone: tonic would end the stream with it otherwise.
        self.attempt_all(Policy::SHORT, Uuid::new_v4(), Deadline::Ours, message, send)
            .await
    }

    /// The error of a call or stream that failed for good.
    pub(crate) fn failure(&self, status: Status) -> Error {
        self.warnings.read(status.metadata());
        let message = status.message().to_lowercase();
        let of_version = status.code() == Code::FailedPrecondition
            && message.contains("client")
            && ["version", "old", "upgrade", "deprecated"]
                .iter()
                .any(|word| message.contains(word));
        if of_version {
            return self.version_refused(status.message());
        }
        status.into()
    }

    pub(crate) fn version_refused(&self, message: &str) -> Error {
        Error::VersionRefused {
            version: self.client_version.clone(),
            message: message.to_owned(),
        }
    }

    pub(crate) async fn call<Q, A, F>(
        &self,
        policy: Policy,
        key: Uuid,
        message: Q,
        send: F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: AsyncFn(ModalClientClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    {
        self.attempt_all(policy, key, Deadline::Told, message, send)
            .await
    }

    async fn attempt_all<Q, A, F>(
        &self,
        policy: Policy,
        key: Uuid,
        deadline: Deadline,
        message: Q,
        send: F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: AsyncFn(ModalClientClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    {
        let mut attempts = Attempts::new(policy, self.throttle_limit);
        let mut pause = Duration::ZERO;
        loop {
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = self.attempt_headers(key, &attempts, pause);
            // The server hears of the limit as well, so that it does not work for nobody.
            if matches!(deadline, Deadline::Told) {
                request.set_timeout(policy.attempt_timeout);
            }
            let answer = match tokio::time::timeout(
                policy.attempt_timeout,
                send(self.stub.clone(), request),
            )
            .await
            {
                Ok(answer) => answer,
                Err(_) => Err(Status::deadline_exceeded(format!(
                    "no answer within {:?}",
                    policy.attempt_timeout
                ))),
            };
            let status = match answer {
                Ok(response) => {
                    self.warnings.read(response.metadata());
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            let Some(delay) = attempts.next_delay(&status) else {
                return Err(self.failure(status));
            };
            tracing::debug!(code = ?status.code(), message = status.message(), ?delay, "call failed, trying again");
            tokio::time::sleep(delay).await;
            pause = delay;
        }
    }

    fn attempt_headers(&self, key: Uuid, attempts: &Attempts, pause: Duration) -> MetadataMap {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let mut headers = self.headers.clone();
        let mut put = |name: &'static str, text: String| {
            if let Ok(value) = AsciiMetadataValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        put(wire::IDEMPOTENCY_KEY, key.to_string());
        put(wire::RETRY_ATTEMPT, attempts.retries.to_string());
        put("x-throttle-retry-attempt", attempts.throttled.to_string());
        put("x-modal-timestamp", format!("{now:.6}"));
        // The name of the pause says whose wish it was.
        if attempts.throttled > 0 {
            put("x-throttle-retry-delay", pause.as_secs_f64().to_string());
        }
        if attempts.retries > 0 {
            put("x-retry-delay", pause.as_secs_f64().to_string());
        }
        headers
    }
}

/// Whether the server is told of an attempt's limit.
enum Deadline {
    Told,
    Ours,
}

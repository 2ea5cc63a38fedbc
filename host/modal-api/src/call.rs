//! One logical call: the same request and idempotency key in every attempt, fresh headers and a limit for each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{
    Request, Response, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::Channel,
};
use uuid::Uuid;

use crate::{
    Credentials, Error, MAX_MESSAGE_BYTES, ServerUrl,
    retry::{Attempts, Policy},
    wire::{self, modal_client_client::ModalClientClient},
};

/// A channel with the headers that all calls share.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    stub: ModalClientClient<Channel>,
    headers: MetadataMap,
}

impl Caller {
    pub(crate) fn new(url: &ServerUrl, credentials: &Credentials) -> Result<Self, Error> {
        let stub = ModalClientClient::new(url.channel()?)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self {
            stub,
            headers: credentials.metadata(url)?,
        })
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
        let mut attempts = Attempts::new(policy);
        let mut pause = Duration::ZERO;
        loop {
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = self.attempt_headers(key, &attempts, pause);
            // The server hears of the limit as well, so that it does not work for nobody.
            request.set_timeout(policy.attempt_timeout);
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
                    log_warnings(response.metadata());
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            let Some(delay) = attempts.next_delay(&status) else {
                return Err(status.into());
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
        if !pause.is_zero() {
            put("x-retry-delay", pause.as_secs_f64().to_string());
        }
        headers
    }
}

fn log_warnings(metadata: &MetadataMap) {
    for warning in metadata.get_all("x-modal-warning") {
        tracing::warn!(
            warning = warning.to_str().unwrap_or("(not text)"),
            "the server warns"
        );
    }
}

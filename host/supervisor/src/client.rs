//! The Execution API over HTTP, as the Task SDK speaks it: token, version and correlation headers, a refreshed token taken from any
//! answer, repeats while the server is away. What the calls mean is said elsewhere.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Error;

/// The version of the Execution API that Task SDK 1.3.2 was generated from.
pub const API_VERSION: &str = "2026-06-30";
/// Marks XCom requests whose values are in the form of the `xcom` table: the plugin's work is done by the worker.
const STORED_XCOM_HEADER: &str = "modalflow-xcom";
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One server, for all tasks of a worker.
#[derive(Clone, Debug)]
pub(crate) struct ExecutionApi {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Arc<str>,
    durable: Option<Arc<dyn Durable>>,
}

/// What makes durable what tasks have written, where that does not happen by itself. Before the server hears of a task's end,
/// whoever comes next must be able to see its XComs.
#[async_trait]
pub trait Durable: std::fmt::Debug + Send + Sync {
    /// Answers when everything written so far is safe; else why not.
    async fn commit(&self) -> Result<(), String>;
}

/// One task's access: it holds the token.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    api: ExecutionApi,
    token: Arc<Mutex<String>>,
}

/// A request, made once and sent as often as needed.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    target: String,
    body: Option<Bytes>,
    stored_xcom: bool,
    trace: Option<String>,
}

/// A 2xx answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server answered, and no repeat would change it (or it answered 5xx until the patience was over).
    #[error("{message} ({status})")]
    Refused {
        status: StatusCode,
        message: String,
        answer: Value,
    },
    #[error("the Execution API is not reachable: {0}")]
    Unreachable(String),
    #[error("the Execution API answered what cannot be read: {0}")]
    Unreadable(String),
    #[error("what the task has written could not be made durable: {0}")]
    NotDurable(String),
}

impl ExecutionApi {
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let refused = |reason: &str| Error::ExecutionApiUrl {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let parsed: Uri = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| refused(&error.to_string()))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.authority().is_none() {
            return Err(refused(
                "it must begin with http:// or https:// and name a host",
            ));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.enforce_http(false);
        // Mozilla's roots: a container's image may have none of its own.
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector);
        Ok(Self {
            http,
            base: url.trim_end_matches('/').into(),
            durable: None,
        })
    }

    /// With something to do before an end is reported.
    pub(crate) fn durably(self, durable: Option<Arc<dyn Durable>>) -> Self {
        Self { durable, ..self }
    }

    pub(crate) fn session(&self, token: String) -> Session {
        Session {
            api: self.clone(),
            token: Arc::new(Mutex::new(token)),
        }
    }
}

impl Call {
    /// `path` begins with `/`; its variable parts went through `segment` or `key`.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            target: path.into(),
            body: None,
            stored_xcom: false,
            trace: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        self.target.push(separator);
        self.target.push_str(name);
        self.target.push('=');
        encode(&mut self.target, value.as_ref(), b"");
        self
    }

    pub(crate) fn optional_query(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(crate) fn json(self, body: &impl serde::Serialize) -> Self {
        self.body(
            serde_json::to_vec(body)
                .expect("our own bodies have a JSON form")
                .into(),
        )
    }

    pub(crate) fn body(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }

    /// Values travel in the form of the `xcom` table.
    pub(crate) fn stored_xcom(mut self) -> Self {
        self.stored_xcom = true;
        self
    }

    /// Continues the task's trace.
    pub(crate) fn trace(mut self, parent: Option<String>) -> Self {
        self.trace = parent;
        self
    }
}

#[cfg(test)]
impl std::fmt::Display for Call {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.method, self.target)?;
        match &self.body {
            Some(body) => write!(formatter, " {}", String::from_utf8_lossy(body)),
            None => Ok(()),
        }
    }
}

/// One variable part of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(&mut out, text, b":+@=,");
    out
}

/// The last part of a path, which may hold slashes.
pub(crate) fn key(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(&mut out, text, b":+@=,/");
    out
}

fn encode(out: &mut String, text: &str, also_plain: &[u8]) {
    use std::fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also_plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("memory can always be written to");
        }
    }
}

impl Session {
    /// To be called before the server hears of an end.
    pub(crate) async fn make_durable(&self) -> Result<(), CallError> {
        match &self.api.durable {
            Some(durable) => durable.commit().await.map_err(CallError::NotDurable),
            None => Ok(()),
        }
    }

    /// Sends the call, again and again for up to `patience` while the server is away or answers 5xx.
    pub(crate) async fn call(&self, call: &Call, patience: Duration) -> Result<Answer, CallError> {
        let give_up = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => error,
            };
            let rest = pause.mul_f64(rand::random_range(0.5..1.0));
            if Instant::now() + rest >= give_up {
                return Err(error);
            }
            tracing::debug!(target = call.target, %error, "Execution API call will be repeated");
            tokio::time::sleep(rest).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends the call once.
    pub(crate) async fn attempt(&self, call: &Call) -> Result<Answer, CallError> {
        let token = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut request = http::Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.api.base, call.target))
            .header(header::ACCEPT, "*/*")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(
                header::USER_AGENT,
                concat!("modalflow/", env!("CARGO_PKG_VERSION")),
            )
            .header("airflow-api-version", API_VERSION)
            .header("correlation-id", uuid::Uuid::now_v7().to_string());
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if call.stored_xcom {
            request = request.header(STORED_XCOM_HEADER, "stored");
        }
        if let Some(trace) = &call.trace {
            request = request.header("traceparent", trace);
        }
        let body = Full::new(call.body.clone().unwrap_or_default());
        let request = request
            .body(body)
            .map_err(|error| CallError::Unreadable(error.to_string()))?;
        let exchange = async {
            let response = self
                .api
                .http
                .request(request)
                .await
                .map_err(|error| CallError::Unreachable(chain(&error)))?;
            let (head, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| CallError::Unreachable(chain(&error)))?
                .to_bytes();
            Ok((head, body))
        };
        let (head, body) = tokio::time::timeout(ANSWER, exchange).await.map_err(|_| {
            CallError::Unreachable(format!("no answer within {} s", ANSWER.as_secs()))
        })??;
        if let Some(token) = head
            .headers
            .get("refreshed-api-token")
            .and_then(|token| token.to_str().ok())
        {
            token.clone_into(&mut self.token.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if head.status.is_success() {
            Ok(Answer {
                headers: head.headers,
                body,
            })
        } else {
            Err(refusal(head.status, &body))
        }
    }
}

impl Answer {
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| CallError::Unreadable(error.to_string()))
    }
}

impl CallError {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            Self::Unreachable(_) | Self::Unreadable(_) | Self::NotDurable(_) => None,
        }
    }

    /// The server's `detail`.
    pub(crate) fn detail(&self) -> Value {
        match self {
            Self::Refused { answer, .. } => answer
                .get("detail")
                .cloned()
                .unwrap_or_else(|| answer.clone()),
            Self::Unreachable(reason) | Self::Unreadable(reason) | Self::NotDurable(reason) => {
                json!(reason)
            }
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Unreachable(_) => true,
            Self::Unreadable(_) | Self::NotDurable(_) => false,
        }
    }

    /// The error that a task runner is told.
    // airflow: WatchedSubprocess.handle_requests
    pub(crate) fn to_error_response(&self) -> Value {
        let detail = match self {
            Self::Refused {
                status,
                message,
                answer,
            } => {
                json!({"status_code": status.as_u16(), "message": message, "detail": answer})
            }
            Self::Unreachable(message) => {
                json!({"status_code": null, "message": message, "exception_type": "ConnectError"})
            }
            Self::Unreadable(message) => {
                json!({"status_code": null, "message": message, "exception_type": "ValidationError"})
            }
            Self::NotDurable(message) => {
                json!({"status_code": null, "message": message, "exception_type": "OSError"})
            }
        };
        json!({"error": "API_SERVER_ERROR", "detail": detail, "type": "ErrorResponse"})
    }
}

// airflow: ServerResponseError.from_response
fn refusal(status: StatusCode, body: &[u8]) -> CallError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_else(|_| {
        Value::String(String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned())
    });
    let message = match answer.get("detail") {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::String(_)) => "Un-parseable error".to_owned(),
        Some(Value::Array(_)) => "Remote server returned validation error".to_owned(),
        _ => "Server returned error".to_owned(),
    };
    CallError::Refused {
        status,
        message,
        answer,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Call, key, segment};

    #[test]
    fn ids_of_any_kind_make_paths_and_queries() {
        insta::assert_snapshot!(segment("manual__2024-01-01T00:00:00+00:00"), @"manual__2024-01-01T00:00:00+00:00");
        insta::assert_snapshot!(segment("a/b?c#d é%\n"), @"a%2Fb%3Fc%23d%20%C3%A9%25%0A");
        insta::assert_snapshot!(key("a/b?c"), @"a/b%3Fc");
        let call = Call::get("/x")
            .query("a", "1+1")
            .optional_query("b", None::<&str>)
            .query("c", "é&");
        insta::assert_snapshot!(call.target, @"/x?a=1%2B1&c=%C3%A9%26");
    }
}

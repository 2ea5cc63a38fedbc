//! Where the server is, and the channel to it. The channel is lazy: it connects with the first call and again after a loss.

use std::{path::PathBuf, str::FromStr, time::Duration};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const WINDOW_BYTES: u32 = 64 << 20;

/// The address of a server: a unix socket or plain HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerUrl {
    Unix(PathBuf),
    Http { authority: String },
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Url {
            url: text.to_owned(),
            reason: reason.to_owned(),
        };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(refuse("the socket's path is not absolute"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(rest) = text.strip_prefix("http://") {
            let authority = rest.trim_end_matches('/');
            if authority.is_empty() || authority.contains('/') {
                return Err(refuse(
                    "a host with an optional port is expected after http://",
                ));
            }
            return Ok(Self::Http {
                authority: authority.to_owned(),
            });
        }
        if text.starts_with("https://") {
            return Err(refuse("this build speaks no TLS"));
        }
        Err(refuse("the scheme is neither unix nor http"))
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http { authority } => write!(f, "http://{authority}"),
        }
    }
}

impl ServerUrl {
    /// What goes into `x-modal-host`.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Http { authority } => authority
                .rsplit_once(':')
                .map_or(authority.as_str(), |(host, _)| host),
        }
    }

    pub(crate) fn channel(&self) -> Result<Channel, Error> {
        match self {
            Self::Unix(path) => {
                let path = path.clone();
                // The URI only fills `:authority`; the connector decides where the bytes go.
                let endpoint = tuned(Endpoint::from_static("http://localhost"));
                Ok(
                    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                        let path = path.clone();
                        async move {
                            tokio::net::UnixStream::connect(path)
                                .await
                                .map(TokioIo::new)
                        }
                    })),
                )
            }
            Self::Http { authority } => {
                let endpoint =
                    Endpoint::from_shared(format!("http://{authority}")).map_err(|source| {
                        Error::Url {
                            url: self.to_string(),
                            reason: source.to_string(),
                        }
                    })?;
                Ok(tuned(endpoint).connect_lazy())
            }
        }
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::ServerUrl;

    fn check(text: &str) -> String {
        match text.parse::<ServerUrl>() {
            Ok(url) => format!("{url:?}"),
            Err(error) => error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }

    #[test]
    fn an_address_is_a_socket_or_plain_http() {
        let cases = [
            "unix:///run/a.sock",
            "unix://a.sock",
            "http://127.0.0.1:80/",
            "http://",
            "http://a/b",
            "https://api.modal.com",
            "a:1",
        ];
        insta::assert_snapshot!(cases.map(check).join("\n"), @r#"
        Unix("/run/a.sock")
        server address 'unix://a.sock' cannot be used: the socket's path is not absolute
        Http { authority: "127.0.0.1:80" }
        server address 'http://' cannot be used: a host with an optional port is expected after http://
        server address 'http://a/b' cannot be used: a host with an optional port is expected after http://
        server address 'https://api.modal.com' cannot be used: this build speaks no TLS
        server address 'a:1' cannot be used: the scheme is neither unix nor http
        "#);
    }
}

//! Where the server is, and the channel to it. A lazy channel connects with the first call; both kinds connect again after a loss.

use std::{path::PathBuf, str::FromStr, time::Duration};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};

use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const WINDOW_BYTES: u32 = 64 << 20;

/// The address of a server: a unix socket, plain HTTP/2 or HTTP/2 over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerUrl {
    Unix(PathBuf),
    Http { authority: String },
    Https { authority: String },
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
        for (scheme, tls) in [("http://", false), ("https://", true)] {
            let Some(rest) = text.strip_prefix(scheme) else {
                continue;
            };
            let authority = rest.trim_end_matches('/');
            if authority.is_empty() || authority.contains(['/', ' ', '@', '?', '#']) {
                return Err(refuse(
                    "a host with an optional port is expected after the scheme",
                ));
            }
            let authority = authority.to_owned();
            return Ok(if tls {
                Self::Https { authority }
            } else {
                Self::Http { authority }
            });
        }
        Err(refuse("the scheme is neither https nor http nor unix"))
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http { authority } => write!(f, "http://{authority}"),
            Self::Https { authority } => write!(f, "https://{authority}"),
        }
    }
}

impl ServerUrl {
    /// What goes into `x-modal-host`.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Http { authority } | Self::Https { authority } => authority
                .rsplit_once(':')
                .map_or(authority.as_str(), |(host, _)| host),
        }
    }

    /// A list with commas between the addresses, in order of preference.
    pub fn list(text: &str) -> Result<Vec<Self>, Error> {
        text.split(',').map(|one| one.trim().parse()).collect()
    }

    /// True for a server that only this machine reaches: it may do without a token.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Http { .. } | Self::Https { .. } => {
                let host = self.host().trim_matches(['[', ']']);
                host == "localhost"
                    || host
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// A channel that connects with its first call.
    pub(crate) fn channel(&self) -> Result<Channel, Error> {
        let endpoint = self.endpoint()?;
        Ok(match self {
            Self::Unix(path) => endpoint.connect_with_connector_lazy(socket(path.clone())),
            Self::Http { .. } | Self::Https { .. } => endpoint.connect_lazy(),
        })
    }

    /// A channel that is connected.
    pub(crate) async fn connect(&self) -> Result<Channel, Error> {
        let endpoint = self.endpoint()?;
        let connected = match self {
            Self::Unix(path) => endpoint.connect_with_connector(socket(path.clone())).await,
            Self::Http { .. } | Self::Https { .. } => endpoint.connect().await,
        };
        connected.map_err(|error| Error::NoServer {
            servers: self.to_string(),
            reason: chain(&error),
        })
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let unusable = |source: tonic::transport::Error| Error::Url {
            url: self.to_string(),
            reason: chain(&source),
        };
        match self {
            // The URI only fills `:authority`; the connector decides where the bytes go.
            Self::Unix(_) => Ok(tuned(Endpoint::from_static("http://localhost"))),
            Self::Http { .. } => {
                let endpoint = Endpoint::from_shared(self.to_string()).map_err(unusable)?;
                Ok(tuned(endpoint))
            }
            Self::Https { .. } => {
                let endpoint = Endpoint::from_shared(self.to_string()).map_err(unusable)?;
                // The machine's own roots, and Mozilla's for machines that have none.
                let roots = ClientTlsConfig::new().with_enabled_roots();
                tuned(endpoint).tls_config(roots).map_err(unusable)
            }
        }
    }
}

/// Connects to a socket whatever the URI says.
fn socket(
    path: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio::net::UnixStream>,
    Error = std::io::Error,
    Future: Send,
> + Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            tokio::net::UnixStream::connect(path)
                .await
                .map(TokioIo::new)
        }
    })
}

/// An error with its causes: the outermost sentence alone says "transport error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = inner.source();
    }
    text
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
    fn an_address_is_a_socket_or_http_with_or_without_tls() {
        let cases = [
            "unix:///run/a.sock",
            "unix://a.sock",
            "http://127.0.0.1:80/",
            "http://",
            "http://a/b",
            "https://api.modal.com",
            "a:1",
            "https://user@host",
        ];
        insta::assert_snapshot!(cases.map(check).join("\n"), @r#"
        Unix("/run/a.sock")
        server address 'unix://a.sock' cannot be used: the socket's path is not absolute
        Http { authority: "127.0.0.1:80" }
        server address 'http://' cannot be used: a host with an optional port is expected after the scheme
        server address 'http://a/b' cannot be used: a host with an optional port is expected after the scheme
        Https { authority: "api.modal.com" }
        server address 'a:1' cannot be used: the scheme is neither https nor http nor unix
        server address 'https://user@host' cannot be used: a host with an optional port is expected after the scheme
        "#);
    }
}

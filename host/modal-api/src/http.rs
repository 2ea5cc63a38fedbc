//! File contents over HTTP: what is too large for a message goes to and comes from addresses that the server hands out.
//!
//! Such an address is a password: it stands in no error and no log.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{Error, digest, url};

/// From the first byte sent to the head of the answer; what is sent has time of its own.
const ATTEMPT: Duration = Duration::from_secs(600);
/// An upload may be as slow as 16 KiB a second.
const SLOWEST_SHIFT: u32 = 14;
/// A download may take as long as it likes, but not bring nothing for so long.
const SILENCE: Duration = Duration::from_secs(60);
/// What the store sends to be asked less often.
const SLOW_DOWN: Duration = Duration::from_secs(1);

/// Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What to send, and what is asked of the headers.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) body: Bytes,
    pub(crate) content_type: Option<&'static str>,
    /// For stores that check it.
    pub(crate) content_md5: Option<String>,
}

/// One request, however often it is sent.
struct Exchange<'a> {
    what: &'a str,
    method: Method,
    address: &'a str,
    upload: &'a Upload,
    /// An answer with a longer body is none.
    most: usize,
}

/// How often and how patiently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempts {
    pub(crate) most: u32,
    pub(crate) first_delay: Duration,
}

impl Attempts {
    // modal: the `retry` of _upload_to_s3_url, of _download_from_url and of the blocks of a volume
    pub(crate) const UPLOAD: Self = Self {
        most: 3,
        first_delay: Duration::from_millis(300),
    };
    pub(crate) const DOWNLOAD: Self = Self {
        most: 5,
        first_delay: Duration::from_millis(100),
    };
    pub(crate) const BLOCK: Self = Self {
        most: 11,
        first_delay: Duration::from_millis(500),
    };
}

impl Http {
    pub(crate) fn new() -> Self {
        let builder = HttpsConnectorBuilder::new();
        // The machine's own roots; Mozilla's for a machine that has none.
        let connector = match builder.with_native_roots() {
            Ok(builder) => builder.https_or_http().enable_http1().build(),
            Err(_) => HttpsConnectorBuilder::new()
                .with_webpki_roots()
                .https_or_http()
                .enable_http1()
                .build(),
        };
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// PUTs; answers the headers and the body.
    pub(crate) async fn put(
        &self,
        what: &str,
        address: &str,
        upload: &Upload,
        attempts: Attempts,
    ) -> Result<(HeaderMap, Bytes), Error> {
        let exchange = Exchange {
            what,
            method: Method::PUT,
            address,
            upload,
            most: usize::MAX,
        };
        self.ask(exchange, attempts).await
    }

    pub(crate) async fn post(
        &self,
        what: &str,
        address: &str,
        body: Bytes,
        attempts: Attempts,
    ) -> Result<Bytes, Error> {
        let upload = Upload {
            body,
            content_type: None,
            content_md5: None,
        };
        let exchange = Exchange {
            what,
            method: Method::POST,
            address,
            upload: &upload,
            most: usize::MAX,
        };
        let (_, answer) = self.ask(exchange, attempts).await?;
        Ok(answer)
    }

    /// A body of at most so many bytes that fits the digest which its server names. One that does not was damaged on its way: it is
    /// fetched again.
    pub(crate) async fn get(
        &self,
        what: &str,
        address: &str,
        most: usize,
        attempts: Attempts,
    ) -> Result<Bytes, Error> {
        let nothing = Upload {
            body: Bytes::new(),
            content_type: None,
            content_md5: None,
        };
        let exchange = Exchange {
            what,
            method: Method::GET,
            address,
            upload: &nothing,
            most,
        };
        let (_, body) = self.ask(exchange, attempts).await?;
        Ok(body)
    }

    async fn ask(
        &self,
        exchange: Exchange<'_>,
        attempts: Attempts,
    ) -> Result<(HeaderMap, Bytes), Error> {
        let mut delay = attempts.first_delay;
        let mut made = 1;
        loop {
            let failure = match self.once(&exchange).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if made >= attempts.most || !failure.passing {
                return Err(failure.error);
            }
            tracing::debug!(error = %failure.error, ?delay, "transfer failed, trying again");
            tokio::time::sleep(if failure.slow_down {
                delay.max(SLOW_DOWN)
            } else {
                delay
            })
            .await;
            delay = (delay * 2).min(Duration::from_secs(5));
            made += 1;
        }
    }

    async fn once(&self, exchange: &Exchange<'_>) -> Result<(HeaderMap, Bytes), Failure> {
        let Exchange {
            what,
            method,
            address,
            upload,
            most,
        } = exchange;
        let mut request = Request::builder().method(method).uri(*address);
        if let Some(kind) = upload.content_type {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(md5) = &upload.content_md5 {
            request = request.header("content-md5", md5);
        }
        let request = request
            .body(Full::new(upload.body.clone()))
            .map_err(|_| Failure::lasting(what, "the server's address is unusable".to_owned()))?;
        let limit = patience(upload.body.len());
        let answer = tokio::time::timeout(limit, self.client.request(request))
            .await
            .map_err(|_| Failure::passing(what, format!("no answer within {limit:?}")))?
            .map_err(|error| Failure::passing(what, url::chain(&error)))?;
        let (parts, body) = answer.into_parts();
        let most = if parts.status.is_success() {
            *most
        } else {
            usize::MAX
        };
        let body = whole(body, most, SILENCE)
            .await
            .map_err(|reason| Failure::passing(what, reason))?;
        if parts.status.is_success() {
            // modal: _read_block_body
            if method == Method::GET && !digest::fits(&parts.headers, &body) {
                let reason = "its SHA-256 is not the one that the server named";
                return Err(Failure::passing(what, reason.to_owned()));
            }
            return Ok((parts.headers, body));
        }
        let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        let mut failure = Failure::passing(what, format!("status {}: {text}", parts.status));
        failure.slow_down = parts.status == StatusCode::SERVICE_UNAVAILABLE;
        // Gone or forbidden stays so; the official client tries again even then.
        failure.passing = parts.status.is_server_error()
            || parts.status == StatusCode::TOO_MANY_REQUESTS
            || parts.status == StatusCode::REQUEST_TIMEOUT;
        Err(failure)
    }
}

fn patience(length: usize) -> Duration {
    ATTEMPT + Duration::from_secs(length as u64 >> SLOWEST_SHIFT)
}

/// All of a body, as long as something comes and it is not too long.
async fn whole<B>(mut body: B, most: usize, silence: Duration) -> Result<Bytes, String>
where
    B: BodyExt<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let mut whole = BytesMut::new();
    while let Some(frame) = tokio::time::timeout(silence, body.frame())
        .await
        .map_err(|_| format!("nothing came for {silence:?}"))?
    {
        let frame = frame.map_err(|error| url::chain(&error))?;
        if let Ok(data) = frame.into_data() {
            if data.len() > most - whole.len() {
                return Err(format!("more than {most} bytes came"));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

struct Failure {
    error: Error,
    passing: bool,
    slow_down: bool,
}

impl Failure {
    fn passing(what: &str, reason: String) -> Self {
        let error = Error::Transfer {
            what: what.to_owned(),
            reason,
        };
        Self {
            error,
            passing: true,
            slow_down: false,
        }
    }

    fn lasting(what: &str, reason: String) -> Self {
        Self {
            passing: false,
            ..Self::passing(what, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{Attempts, Http, patience, whole};

    fn frame(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn a_large_upload_has_more_time() {
        let minutes = |length| patience(length).as_secs() / 60;
        assert_eq!([0, 64 << 20, 1 << 30].map(minutes), [10, 78, 1102]);
    }

    #[tokio::test]
    async fn a_body_ends_at_its_end_or_when_nothing_comes() {
        let silence = Duration::from_millis(20);
        let parts = stream::iter([frame("one "), frame("two")]);
        assert_eq!(
            whole(StreamBody::new(parts.boxed()), 7, silence)
                .await
                .unwrap(),
            "one two"
        );
        let parts = stream::iter([frame("one "), frame("two")]);
        assert_eq!(
            whole(StreamBody::new(parts.boxed()), 6, silence).await,
            Err("more than 6 bytes came".to_owned())
        );
        let stuck = stream::iter([frame("one ")]).chain(stream::pending());
        assert_eq!(
            whole(StreamBody::new(stuck.boxed()), 9, silence).await,
            Err("nothing came for 20ms".to_owned())
        );
    }

    /// A server that gives these answers, one a connection; then there is none.
    async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/block", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            for answer in answers {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    peer.read_buf(&mut asked).await.unwrap();
                }
                peer.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, serving)
    }

    fn answer(body: &str, digest: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\nrepr-digest: sha-256=:{digest}:\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn what_was_damaged_on_its_way_is_fetched_again() {
        let digest = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let damaged = [("abd", digest), ("abcd", digest), ("abc", digest)];
        let (address, serving) =
            server(damaged.map(|(body, named)| answer(body, named)).into()).await;
        let attempts = Attempts {
            most: 3,
            first_delay: Duration::from_millis(1),
        };
        let body = Http::new().get("a block", &address, 3, attempts).await;
        assert_eq!(body.unwrap(), "abc");
        serving.await.unwrap();

        let damaged = vec![answer("abd", digest); 3];
        let (address, serving) = server(damaged).await;
        let error = Http::new().get("a block", &address, 3, attempts).await;
        insta::assert_snapshot!(
            error.unwrap_err(),
            @"transfer of a block over HTTP: its SHA-256 is not the one that the server named"
        );
        serving.await.unwrap();
    }
}

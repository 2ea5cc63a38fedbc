//! A bad line to Modal: what calls its API through it meets errors, waits, lost answers and repetitions.
//!
//! It stands at the socket that callers and containers know, and passes on to the one that the server listens at.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use modal_api::wire;
use prost::Message as _;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It never arrives.
    Unavailable,
    /// It arrives, and its answer is lost.
    AnswerLost,
    /// It arrives twice; the second answer counts.
    Twice,
    /// The server has enough for now, and says when to come back.
    Throttled,
    /// The workspace has all that it may have.
    Full,
    /// It is late.
    Slow(Duration),
}

/// Which calls meet what. `None`: nothing happens.
pub type Plan = dyn Fn(&str, usize) -> Option<Fault> + Send + Sync;

/// The line; it ends when dropped.
pub struct BadLine {
    server: tokio::task::JoinHandle<()>,
    met: Arc<Mutex<BTreeMap<(String, Fault), usize>>>,
}

impl BadLine {
    /// Takes the place of the server at `socket`, whose own socket is moved aside. `plan` is asked with the name of the
    /// RPC and the number of the call, all calls counted together.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn before(socket: &Path, plan: Arc<Plan>) -> Self {
        let behind = socket.with_extension("behind");
        std::fs::rename(socket, &behind).expect("a server's socket");
        let listener = UnixListener::bind(socket).expect("the socket's old place is free");
        let met = Arc::default();
        let service = Passing {
            upstream: connect(behind),
            plan,
            met: Arc::clone(&met),
            calls: Arc::default(),
        };
        let server = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await;
            served.expect("the line stands");
        });
        Self { server, met }
    }

    /// How often each fault met each RPC.
    #[must_use]
    pub fn met(&self) -> BTreeMap<(String, Fault), usize> {
        self.met.lock().unwrap().clone()
    }
}

impl Drop for BadLine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn connect(socket: PathBuf) -> Channel {
    Endpoint::from_static("http://modal").connect_with_connector_lazy(tower::service_fn(
        move |_: http::Uri| {
            let socket = socket.clone();
            async move {
                let stream = UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        },
    ))
}

#[derive(Clone)]
struct Passing {
    upstream: Channel,
    plan: Arc<Plan>,
    met: Arc<Mutex<BTreeMap<(String, Fault), usize>>>,
    calls: Arc<Mutex<usize>>,
}

impl NamedService for Passing {
    const NAME: &'static str = "modal.client.ModalClient";
}

impl Service<http::Request<Body>> for Passing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.pass(request).await) })
    }
}

impl Passing {
    async fn pass(self, request: http::Request<Body>) -> http::Response<Body> {
        let rpc = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let number = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        let fault = (self.plan)(&rpc, number);
        if let Some(fault) = fault {
            *self.met.lock().unwrap().entry((rpc, fault)).or_default() += 1;
        }
        match fault {
            None => self.send(request).await,
            Some(Fault::Unavailable) => Status::unavailable("the line is down").into_http(),
            Some(Fault::Throttled) => throttled().into_http(),
            Some(Fault::Full) => {
                Status::resource_exhausted("the workspace's limit is reached").into_http()
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.send(request).await
            }
            Some(Fault::AnswerLost) => {
                drop(self.send(request).await);
                Status::unavailable("the line broke").into_http()
            }
            Some(Fault::Twice) => {
                let (head, body) = request.into_parts();
                let bytes = whole(body).await;
                let copy = |bytes| http::Request::from_parts(head.clone(), bytes);
                drop(self.clone().send(copy(full(&bytes))).await);
                self.send(copy(full(&bytes))).await
            }
        }
    }

    async fn send(mut self, request: http::Request<Body>) -> http::Response<Body> {
        let ready = std::future::poll_fn(|context| self.upstream.poll_ready(context)).await;
        match ready {
            Ok(()) => match self.upstream.call(request).await {
                Ok(response) => response,
                Err(error) => Status::unavailable(error.to_string()).into_http(),
            },
            Err(error) => Status::unavailable(error.to_string()).into_http(),
        }
    }
}

async fn whole(body: Body) -> bytes::Bytes {
    use http_body_util::BodyExt as _;
    body.collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default()
}

fn full(bytes: &bytes::Bytes) -> Body {
    Body::new(http_body_util::Full::new(bytes.clone()))
}

/// As Modal asks for patience: `RPCRetryPolicy` in the status' details.
fn throttled() -> Status {
    let policy = wire::RpcRetryPolicy {
        retry_after_secs: 0.2,
    };
    let details = wire::RpcStatus {
        code: tonic::Code::ResourceExhausted as i32,
        message: String::new(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/modal.client.RPCRetryPolicy".to_owned(),
            value: policy.encode_to_vec(),
        }],
    };
    let details = details.encode_to_vec().into();
    Status::with_details(tonic::Code::ResourceExhausted, "too many calls", details)
}

/// Where a process listens for Modal's API.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn modal_socket(pid: u32) -> PathBuf {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            Some(
                target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    sockets
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|parts| {
            parts
                .get(7)
                .is_some_and(|path| path.ends_with("/modal.sock"))
                && parts
                    .get(6)
                    .is_some_and(|inode| inodes.iter().any(|own| own == inode))
        })
        .map(|parts| PathBuf::from(parts[7]))
        .expect("serve listens for Modal's API")
}

//! The front of servers: HTTP on the loopback interface, handed on to the container that answers. While there is none, callers
//! are told to come again, as on Modal.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{core::Core, servers::Answer};

/// What belongs to one connection and not to the request.
const OWN: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Serves each server's address from the moment it has one.
pub(crate) async fn run(core: Arc<Core>, halt: CancellationToken) {
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut fronts = JoinSet::new();
    loop {
        let fresh: Vec<_> = core
            .lock()
            .servers
            .iter_mut()
            .filter_map(|(id, server)| Some((id.clone(), server.listener.take()?)))
            .collect();
        for (function_id, listener) in fresh {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                tracing::error!(function_id, "an address cannot be served");
                continue;
            };
            let front = Front {
                core: Arc::downgrade(&core),
                function_id,
                client: client.clone(),
            };
            let router = Router::new().fallback(pass).with_state(front);
            let halt = halt.clone();
            fronts.spawn(async move {
                // It ends with the emulator; what is under way then is repeated by whoever needs it.
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    () = halt.cancelled() => {}
                }
            });
        }
        tokio::select! {
            () = core.servers_bell.notified() => {}
            () = halt.cancelled() => return,
        }
    }
}

#[derive(Clone)]
struct Front {
    core: Weak<Core>,
    function_id: String,
    client: Client<HttpConnector, Body>,
}

async fn pass(State(front): State<Front>, mut request: Request) -> Response {
    let Some(core) = front.core.upgrade() else {
        return away("the emulator is stopping");
    };
    let has_key = core
        .tokens
        .as_ref()
        .is_none_or(|tokens| shows(request.headers(), &tokens.id, &tokens.secret));
    let port = match core.server_asked(&front.function_id, has_key) {
        Answer::Gone => {
            return (StatusCode::NOT_FOUND, "this server is not deployed\n").into_response();
        }
        Answer::Closed => {
            return (
                StatusCode::UNAUTHORIZED,
                "this server wants the headers Modal-Key and Modal-Secret; here they are the emulator's token\n",
            )
                .into_response();
        }
        Answer::Starting => return away("a container is starting"),
        Answer::At(port) => port,
    };
    let under_way = UnderWay {
        core,
        function_id: front.function_id,
    };
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{}:{port}{path}", Ipv4Addr::LOCALHOST).parse::<Uri>() else {
        return (StatusCode::BAD_REQUEST, "this path is none\n").into_response();
    };
    *request.uri_mut() = uri;
    strip(request.headers_mut());
    match front.client.request(request).await {
        Ok(answer) => {
            let (mut head, body) = answer.into_parts();
            strip(&mut head.headers);
            Response::from_parts(
                head,
                Body::new(Counted {
                    body: Body::new(body),
                    _under_way: under_way,
                }),
            )
        }
        // It has said that it is started, and does not listen yet.
        Err(error) if error.is_connect() => away("the server is starting"),
        Err(error) => {
            tracing::debug!(%error, "a server did not answer");
            (StatusCode::BAD_GATEWAY, "the server did not answer\n").into_response()
        }
    }
}

fn shows(headers: &HeaderMap, id: &str, secret: &str) -> bool {
    let is = |name: &str, value: &str| {
        headers
            .get(name)
            .is_some_and(|shown| shown.as_bytes() == value.as_bytes())
    };
    is("modal-key", id) && is("modal-secret", secret)
}

fn strip(headers: &mut HeaderMap) {
    for name in OWN {
        headers.remove(name);
    }
}

fn away(why: &str) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(header::RETRY_AFTER, "1")],
        format!("{why}\n"),
    )
        .into_response()
}

/// Counts a request until its answer is out, or nobody wants it any more.
struct UnderWay {
    core: Arc<Core>,
    function_id: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.core.server_answered(&self.function_id);
    }
}

/// A body whose end is the end of its request.
struct Counted {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

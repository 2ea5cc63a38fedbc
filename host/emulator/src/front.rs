//! What happens to each request before and after the table of RPCs: tokens are looked at, and what nobody answers is named.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderMap, HeaderValue};
use modal_api::{MAX_MESSAGE_BYTES, wire::modal_client_server::ModalClientServer};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, service::Routes};

use crate::{config::Tokens, core::Core, http_files, service::Service};

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
/// What tonic says of an RPC that nobody has written.
const NO_REASON: [&[u8]; 2] = [b"", b"Not%20yet%20implemented"];
const SERVICE: &str = "/modal.client.ModalClient/";
/// Clients below this speak another protocol.
const OLDEST_MAJOR: u64 = 1;

/// The RPCs behind a socket that only its owner can open.
pub(crate) fn routes(core: &Arc<Core>, task_id: Option<String>, halt: CancellationToken) -> Routes {
    let router = rpcs(core, task_id, halt).layer(middleware::from_fn(name_unimplemented));
    Routes::from(router)
}

/// The RPCs behind a port that everybody on this machine can open.
pub(crate) fn tcp_routes(core: &Arc<Core>, halt: CancellationToken) -> Routes {
    let router = rpcs(core, None, halt)
        .layer(middleware::from_fn_with_state(core.tokens.clone(), check))
        .merge(http_files::router(core))
        .layer(middleware::from_fn(name_unimplemented));
    Routes::from(router)
}

fn rpcs(core: &Arc<Core>, task_id: Option<String>, halt: CancellationToken) -> axum::Router {
    let service = ModalClientServer::new(Service::new(core, task_id, halt))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Routes::new(service).into_axum_router()
}

async fn check(State(tokens): State<Option<Tokens>>, request: Request, next: Next) -> Response {
    match refusal(tokens.as_ref(), request.headers()) {
        Some(status) => status.into_http(),
        None => next.run(request).await,
    }
}

fn refusal(tokens: Option<&Tokens>, headers: &HeaderMap) -> Option<Status> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(tokens) = tokens {
        let (id, secret) = (header("x-modal-token-id"), header("x-modal-token-secret"));
        if id.is_none() || secret.is_none() {
            return Some(Status::unauthenticated(
                "no token; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what the emulator printed when it started",
            ));
        }
        if (id, secret) != (Some(&tokens.id), Some(&tokens.secret)) {
            return Some(Status::unauthenticated(
                "the token is not this emulator's; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what it printed when it started",
            ));
        }
    }
    let version = header("x-modal-client-version")?;
    let major: u64 = version.split('.').next()?.parse().ok()?;
    (major < OLDEST_MAJOR).then(|| {
        Status::failed_precondition(format!(
            "client {version} is too old, {} is known to work; hint: pip install -U modal",
            modal_api::CLIENT_VERSION
        ))
    })
}

/// UNIMPLEMENTED without a reason of its own.
fn is_unexplained(headers: &HeaderMap) -> bool {
    let is_unimplemented = headers
        .get(GRPC_STATUS)
        .is_some_and(|code| code.as_bytes() == (Code::Unimplemented as i32).to_string().as_bytes());
    is_unimplemented
        && headers
            .get(GRPC_MESSAGE)
            .is_none_or(|message| NO_REASON.contains(&message.as_bytes()))
}

/// tonic answers what is not in the table without a word.
async fn name_unimplemented(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if is_unexplained(headers)
        && let Some(rpc) = path.strip_prefix(SERVICE)
        && let Ok(message) = HeaderValue::from_str(&format!(
            "{rpc} is not there: this is modalflow's emulator, which serves a part of Modal's API"
        ))
    {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use tonic::Status;

    use super::{is_unexplained, refusal};
    use crate::Tokens;

    #[test]
    fn a_reason_that_is_there_stays() {
        let unexplained = |status: Status| {
            let response = status.into_http::<tonic::body::Body>();
            is_unexplained(response.headers())
        };
        assert!(unexplained(Status::unimplemented("")));
        assert!(unexplained(Status::unimplemented("Not yet implemented")));
        assert!(!unexplained(Status::unimplemented(
            "staged deployments are not there"
        )));
        assert!(!unexplained(Status::not_found("")));
    }

    fn code(pairs: &[(&'static str, &'static str)]) -> Option<tonic::Code> {
        let tokens = Tokens {
            id: "ak-1".to_owned(),
            secret: "as-1".to_owned(),
        };
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        refusal(Some(&tokens), &headers).map(|status| status.code())
    }

    #[test]
    fn only_both_halves_of_the_token_open_the_door() {
        let (id, secret) = (
            ("x-modal-token-id", "ak-1"),
            ("x-modal-token-secret", "as-1"),
        );
        let wrong = ("x-modal-token-secret", "as-2");
        let old = ("x-modal-client-version", "0.64.1");
        let new = ("x-modal-client-version", "1.6.4");
        assert_eq!(code(&[id, secret, new]), None);
        assert_eq!(code(&[id, secret]), None);
        assert_eq!(code(&[id]), Some(tonic::Code::Unauthenticated));
        assert_eq!(code(&[id, wrong]), Some(tonic::Code::Unauthenticated));
        assert_eq!(
            code(&[id, secret, old]),
            Some(tonic::Code::FailedPrecondition)
        );
    }
}

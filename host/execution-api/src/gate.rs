//! What happens to every request on its way in and out: version, token, refresh.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::tokens::{Claims, Refused};
use crate::version::{self, Version};
use crate::{ApiState, clock};

const CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");
pub(crate) const REFRESHED_TOKEN: HeaderName = HeaderName::from_static("refreshed-api-token");

/// Who asks, or why the token says nothing; the routes' extractors look at it.
#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) Result<Claims, Refused>);

pub(crate) async fn pass(
    State(api): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = clock::now();
    let asked_version = request.headers().get(version::HEADER).cloned();
    let correlation_id = request.headers().get(CORRELATION_ID).cloned();
    let bearer = bearer(&api, request.headers(), now);
    let version = Version::requested(request.headers());

    let mut response = match version {
        Err(problem) => problem.into_response(),
        Ok(version) => {
            request.extensions_mut().insert(version);
            request.extensions_mut().insert(Bearer(bearer.clone()));
            next.run(request).await
        }
    };

    let headers = response.headers_mut();
    let version = asked_version.unwrap_or_else(|| HeaderValue::from_static("2026-06-30"));
    headers.insert(version::HEADER, version);
    if let Some(id) = correlation_id {
        headers.insert(CORRELATION_ID, id);
    }
    if let Ok(claims) = &bearer
        && !headers.contains_key(REFRESHED_TOKEN)
        && let Some(token) = api.tokens.refreshed(claims, now)
        && let Ok(token) = HeaderValue::from_str(&token)
    {
        headers.insert(REFRESHED_TOKEN, token);
    }
    response
}

fn bearer(
    api: &ApiState,
    headers: &HeaderMap,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Claims, Refused> {
    let header = headers.get(header::AUTHORIZATION).ok_or(Refused::Missing)?;
    let text = header.to_str().map_err(|_| Refused::Invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refused::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Refused::Missing);
    }
    api.tokens.verify(token, now)
}

//! Who asks. A route names in its signature what token it wants; nothing else of it runs before.

use axum::extract::{FromRequestParts, RawPathParams};
use http::StatusCode;
use http::request::Parts;
use uuid::Uuid;

use crate::gate::Bearer;
use crate::problem::Problem;
use crate::tokens::{Claims, Refused, Scope};

/// Any running try.
pub(crate) struct Caller {
    pub(crate) ti_id: Uuid,
}

/// The try, or the callback, that the path names: `{task_instance_id}`, `{callback_id}`.
pub(crate) struct OwnTask {
    pub(crate) id: Uuid,
}

/// As [`OwnTask`], also with the token that came with the workload.
pub(crate) struct StartingTask {
    pub(crate) id: Uuid,
    pub(crate) scope: Scope,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let claims = claims(parts, &[Scope::Execution])?;
        Ok(Self {
            ti_id: claims.subject,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OwnTask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let claims = claims(parts, &[Scope::Execution])?;
        Ok(Self {
            id: own(parts, state, &claims).await?,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for StartingTask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let claims = claims(parts, &[Scope::Execution, Scope::Workload])?;
        let id = own(parts, state, &claims).await?;
        Ok(Self {
            id,
            scope: claims.scope,
        })
    }
}

/// What the token says, if its scope is one of `allowed`. `airflow: security.require_auth`
fn claims(parts: &Parts, allowed: &[Scope]) -> Result<Claims, Problem> {
    let bearer = parts.extensions.get::<Bearer>();
    let claims = match bearer {
        Some(Bearer(Ok(claims))) => claims,
        Some(Bearer(Err(Refused::Missing))) | None => {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                Refused::Missing.to_string(),
            ));
        }
        Some(Bearer(Err(refused @ (Refused::Invalid | Refused::UnknownScope)))) => {
            return Err(Problem::new(StatusCode::FORBIDDEN, refused.to_string()));
        }
    };
    if allowed.contains(&claims.scope) {
        return Ok(claims.clone());
    }
    let names: Vec<&str> = allowed.iter().map(|scope| scope.as_str()).collect();
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        format!(
            "Token type '{}' not allowed for this endpoint. Allowed types: {}",
            claims.scope.as_str(),
            names.join(", ")
        ),
    ))
}

/// The id in the path, if it is the token's own.
async fn own<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    claims: &Claims,
) -> Result<Uuid, Problem> {
    let path = RawPathParams::from_request_parts(parts, state).await.ok();
    let named = path
        .iter()
        .flatten()
        .find(|(name, _)| matches!(*name, "task_instance_id" | "callback_id"))
        .map(|(_, value)| value);
    if named == Some(claims.subject.to_string().as_str()) {
        return Ok(claims.subject);
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "Token subject does not match task instance ID",
    ))
}

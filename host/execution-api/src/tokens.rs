//! The tokens that name a try: JWT, HS512, with Airflow's claims, so that Airflow's own api-server would take them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;

/// `[execution_api] jwt_audience`
const AUDIENCE: &str = "urn:airflow.apache.org:task";
/// Seconds by which clocks may differ; `[api_auth] jwt_leeway`
const LEEWAY: i64 = 10;

/// What a token is good for. `airflow: TokenScope`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Only to start the try; goes out with the workload and may wait in a queue.
    Workload,
    /// Everything else; handed out by the start, refreshed by any answer.
    Execution,
}

impl Scope {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Execution => "execution",
        }
    }
}

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    pub workload: Duration,
    pub execution: Duration,
}

impl Default for Lifetimes {
    /// A day each: a workload may wait long for a container, and a host that slept must not find its tasks locked out.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            workload: day,
            execution: day,
        }
    }
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The try, or the connection test, that the token speaks for.
    pub subject: Uuid,
    pub scope: Scope,
    issued_at: i64,
    expires_at: i64,
}

/// Why a token is not taken. The text goes to the client and says nothing about the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Missing auth token")]
    Missing,
    #[error("Invalid auth token")]
    Invalid,
    #[error("Invalid auth token: scope should be 'execution' or 'workload'")]
    UnknownScope,
}

/// Makes and checks tokens. A clone shares nothing but the key's bytes.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    lifetimes: Lifetimes,
}

impl Tokens {
    /// `secret` is `[api_auth] jwt_secret` as bytes; 64 random bytes or more are right for HS512.
    #[must_use]
    pub fn new(secret: &[u8], lifetimes: Lifetimes) -> Self {
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            lifetimes,
        }
    }

    /// A token that goes out with the workload of a try.
    #[must_use]
    pub fn workload(&self, ti_id: Uuid) -> String {
        self.mint(ti_id, Scope::Workload, clock::now())
    }

    /// A token for a running try.
    #[must_use]
    pub fn execution(&self, ti_id: Uuid) -> String {
        self.mint(ti_id, Scope::Execution, clock::now())
    }

    fn mint(&self, subject: Uuid, scope: Scope, now: DateTime<Utc>) -> String {
        let lifetime = match scope {
            Scope::Workload => self.lifetimes.workload,
            Scope::Execution => self.lifetimes.execution,
        };
        let now = now.timestamp();
        let claims = json!({
            "sub": subject,
            "scope": scope.as_str(),
            "jti": Uuid::new_v4().simple().to_string(),
            "aud": AUDIENCE,
            "nbf": now,
            "exp": now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
            "iat": now,
        });
        let mut header = Header::new(Algorithm::HS512);
        header.kid = Some("not-used".to_owned());
        jsonwebtoken::encode(&header, &claims, &self.encoding)
            .expect("an object of strings and integers can be encoded with a symmetric key")
    }

    /// # Errors
    /// Why the token is not taken.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, Refused> {
        let mut validation = Validation::new(Algorithm::HS512);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud"]);
        // The library reads the clock itself; times are checked below, against `now`.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(token, &self.decoding, &validation)
            .map_err(|_| Refused::Invalid)?
            .claims;
        let now = now.timestamp();
        let time = |name: &str| claims.get(name).map(as_seconds);
        let (Some(Some(exp)), Some(Some(iat))) = (time("exp"), time("iat")) else {
            return Err(Refused::Invalid);
        };
        let not_before = match time("nbf") {
            None => iat,
            Some(Some(nbf)) => nbf,
            Some(None) => return Err(Refused::Invalid),
        };
        if exp <= now - LEEWAY || iat > now + LEEWAY || not_before > now + LEEWAY {
            return Err(Refused::Invalid);
        }
        let subject = claims
            .get("sub")
            .and_then(Value::as_str)
            .and_then(|sub| Uuid::try_parse(sub).ok())
            .ok_or(Refused::Invalid)?;
        // airflow: a token without a scope is an execution token.
        let scope = match claims.get("scope") {
            None => Scope::Execution,
            Some(scope) if scope == Scope::Execution.as_str() => Scope::Execution,
            Some(scope) if scope == Scope::Workload.as_str() => Scope::Workload,
            Some(_) => return Err(Refused::UnknownScope),
        };
        Ok(Claims {
            subject,
            scope,
            issued_at: iat,
            expires_at: exp,
        })
    }

    /// A new execution token when `claims` run out soon: in the last fifth of their life, or half a minute.
    /// `airflow: JWTReissueMiddleware`
    pub(crate) fn refreshed(&self, claims: &Claims, now: DateTime<Utc>) -> Option<String> {
        let soon = ((claims.expires_at - claims.issued_at) / 5).max(30);
        let left = claims.expires_at - now.timestamp();
        (claims.scope == Scope::Execution && left <= soon)
            .then(|| self.mint(claims.subject, Scope::Execution, now))
    }
}

/// A NumericDate, whole or not.
fn as_seconds(value: &Value) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fraction of a second does not count"
    )]
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

#[cfg(test)]
mod tests;

//! What goes wrong, as the answer that a worker understands: `{"detail": …}` with a status.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

/// A request that is not granted. Workers repeat 5xx and never 4xx: passing trouble must be 503.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: Value,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<Value>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    /// `{"reason": …, "message": …}`, the form that workers look into.
    pub(crate) fn because(status: StatusCode, reason: &str, message: impl AsRef<str>) -> Self {
        Self::new(
            status,
            json!({"reason": reason, "message": message.as_ref()}),
        )
    }

    pub(crate) fn not_found(message: impl AsRef<str>) -> Self {
        Self::because(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn no_task_instance() -> Self {
        Self::not_found("Task Instance not found")
    }

    /// FastAPI's answer for a path that no route has.
    pub(crate) fn not_found_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// A body or query that fails validation, each complaint in pydantic's form.
    pub(crate) fn invalid(complaints: Vec<Value>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, complaints)
    }

    pub(crate) fn bug(message: impl AsRef<str>) -> Self {
        Self::because(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"detail": self.detail}))).into_response()
    }
}

impl From<metadata::Error> for Problem {
    fn from(error: metadata::Error) -> Self {
        let code = match &error {
            metadata::Error::Statement(sqlx::Error::Database(database)) => {
                database.code().map(|code| code.into_owned())
            }
            _ => None,
        };
        let chain = chain(&error);
        if error.is_passing() || is_torn_connection(&error) {
            tracing::warn!(error = %chain, "the database is away; the worker is asked to come again");
            return Self::because(
                StatusCode::SERVICE_UNAVAILABLE,
                "database_unavailable",
                "the database does not answer; try again",
            );
        }
        match code.as_deref() {
            // Data exceptions, program limits and checks: a value that no column takes, JSON nested too deeply.
            Some(code) if code.starts_with("22") || code.starts_with("54") || code == "23514" => {
                tracing::warn!(error = %chain, "the database refused a value");
                Self::because(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "Value rejected by database",
                    database_message(&error),
                )
            }
            Some("23505") => Self::because(
                StatusCode::CONFLICT,
                "Unique constraint violation",
                database_message(&error),
            ),
            _ => {
                tracing::error!(error = %chain, "a request failed");
                Self::because(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Database error",
                    "the request failed; the server's log has the cause",
                )
            }
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        metadata::Error::from(error).into()
    }
}

impl From<plugin_host::Error> for Problem {
    fn from(error: plugin_host::Error) -> Self {
        use plugin_host::Error as E;
        let (status, reason) = match &error {
            error if error.can_be_retried() => {
                (StatusCode::SERVICE_UNAVAILABLE, "plugin_unavailable")
            }
            E::PayloadTooLarge { .. } | E::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
            }
            E::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_format"),
            E::Denied { .. } => (StatusCode::FORBIDDEN, "access_denied"),
            E::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "plugin_failed"),
        };
        tracing::warn!(error = %chain(&error), "the XCom plugin failed");
        Self::because(status, reason, error.to_string())
    }
}

/// The connection broke in the middle of a message, or the server is shutting down.
fn is_torn_connection(error: &metadata::Error) -> bool {
    matches!(
        error,
        metadata::Error::Statement(
            sqlx::Error::PoolClosed | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)
        )
    )
}

/// Postgres' own sentence; it names columns and limits, not values.
fn database_message(error: &metadata::Error) -> String {
    match error {
        metadata::Error::Statement(sqlx::Error::Database(database)) => {
            database.message().to_owned()
        }
        _ => error.to_string(),
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

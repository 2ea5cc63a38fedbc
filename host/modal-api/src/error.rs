//! What can go wrong between us and the server, named by what the caller can do about it.

use tonic::{Code, Status};

/// A failed call. Retries that make sense are already spent when a caller sees one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "server address '{url}' cannot be used: {reason}\nhint: write unix:///path/to.sock or http://127.0.0.1:port"
    )]
    Url { url: String, reason: String },
    #[error("not found: {0}")]
    NotFound(String),
    #[error("already exists: {0}")]
    AlreadyExists(String),
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    #[error("not signed in: {0}\nhint: check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")]
    Unauthenticated(String),
    #[error("quota or queue is full: {0}")]
    ResourceExhausted(String),
    #[error("refused in the present state: {0}")]
    Conflict(String),
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("the server does not implement this: {0}")]
    Unimplemented(String),
    /// The server was away, too slow or broken through all attempts. The call may have taken effect: repeat it with the same key.
    #[error("server unavailable ({code:?}): {message}")]
    Unavailable { code: Code, message: String },
    #[error(
        "the arguments take {size} bytes, {limit} are allowed in an asynchronous call\nhint: store the value and pass a reference"
    )]
    PayloadTooLarge { size: u64, limit: u64 },
    #[error("value does not go into CBOR: {0}")]
    Encode(String),
    #[error("value is not readable as CBOR: {0}")]
    Decode(String),
    #[error("unexpected answer: {0}")]
    Unexpected(String),
    #[error(
        "environment variable {0} is not set\nhint: only a process that was started as a container has it"
    )]
    NotInContainer(&'static str),
}

impl Error {
    /// True if the same call with the same idempotency key may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::ResourceExhausted(_))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound(message),
            Code::AlreadyExists => Self::AlreadyExists(message),
            Code::PermissionDenied => Self::PermissionDenied(message),
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::ResourceExhausted => Self::ResourceExhausted(message),
            Code::FailedPrecondition | Code::Aborted => Self::Conflict(message),
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(message),
            Code::Unimplemented => Self::Unimplemented(message),
            code @ (Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss) => Self::Unavailable { code, message },
        }
    }
}

//! What can go wrong between us and the server, named by what the caller can do about it.

use tonic::{Code, Status};

/// A failed call. Retries that make sense are already spent when a caller sees one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "server address '{url}' cannot be used: {reason}\nhint: write https://host, http://127.0.0.1:port or unix:///path/to.sock; several, with commas between them, are tried in turn"
    )]
    Url { url: String, reason: String },
    #[error("not found: {0}")]
    NotFound(String),
    #[error("already exists: {0}")]
    AlreadyExists(String),
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// No token is configured, and the server is not one of this machine.
    #[error(
        "no token for {servers}\nhint: run `modal token new`, which writes ~/.modal.toml, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"
    )]
    NoToken { servers: String },
    #[error(
        "not signed in: {0}\nhint: the token is wrong, expired or of another workspace; check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or the profile in ~/.modal.toml (`modal token info` shows which one counts)"
    )]
    Unauthenticated(String),
    #[error(
        "quota or queue is full: {0}\nhint: wait for what runs, stop what is not needed, or raise the workspace's limits in Modal's settings"
    )]
    ResourceExhausted(String),
    /// The server no longer takes clients that behave like the version that we claim.
    #[error(
        "the server refuses client version {version}: {message}\nhint: set MODALFLOW_MODAL_CLIENT_VERSION to a version that it takes (the newest `modal` on the package index), or upgrade"
    )]
    VersionRefused { version: String, message: String },
    /// A profile, a file or a variable that does not say what it should.
    #[error("{0}")]
    Config(String),
    #[error("{kind} name '{name}' cannot be used\nhint: {rule}")]
    Name {
        kind: &'static str,
        name: String,
        rule: &'static str,
    },
    /// What was looked up by its name is not there.
    #[error("no {kind} '{name}'{place}: {message}\nhint: {hint}")]
    Missing {
        kind: &'static str,
        name: String,
        /// Empty, or " in environment 'x'".
        place: String,
        message: String,
        hint: &'static str,
    },
    #[error(
        "image {image_id} did not build: {reason}{}{}",
        if log.is_empty() { "" } else { "\nlast lines of its log:\n" },
        log.join("\n")
    )]
    ImageBuild {
        image_id: String,
        reason: String,
        /// The last lines of the log, oldest first.
        log: Vec<String>,
    },
    /// A transfer of file contents over HTTP. The address is kept out, since it is a password.
    #[error("transfer of {what} over HTTP: {reason}")]
    Transfer { what: String, reason: String },
    #[error("file {path}: {source}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "nothing connects to {servers}: {reason}\nhint: check the network, or MODAL_SERVER_URL; a certificate of one's own is trusted when SSL_CERT_FILE names its root"
    )]
    NoServer { servers: String, reason: String },
    #[error("refused in the present state: {0}")]
    Conflict(String),
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error(
        "the server does not implement this: {0}\nhint: the emulator on this machine has no sandboxes and tunnels (docs/reference/emulator.md lists what it serves); Modal itself has all"
    )]
    Unimplemented(String),
    /// The server was away, too slow or broken through all attempts. The call may have taken effect: repeat it with the same key.
    #[error("server unavailable ({code:?}): {message}")]
    Unavailable { code: Code, message: String },
    #[error(
        "the arguments take {size} bytes, {limit} are allowed in a call\nhint: store the value and pass a reference"
    )]
    PayloadTooLarge { size: u64, limit: u64 },
    #[error("value cannot be encoded: {0}")]
    Encode(String),
    #[error("value is not readable: {0}")]
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
        matches!(
            self,
            Self::Unavailable { .. } | Self::ResourceExhausted(_) | Self::NoServer { .. }
        )
    }
}

impl Error {
    /// True if the same may succeed with another token, or with more rights for this one.
    #[must_use]
    pub fn is_signed_out(&self) -> bool {
        matches!(
            self,
            Self::Unauthenticated(_) | Self::NoToken { .. } | Self::PermissionDenied(_)
        )
    }

    /// Says what was looked for when the server only says that it is not there.
    #[must_use]
    pub(crate) fn looking_for(
        self,
        kind: &'static str,
        name: &str,
        environment: &str,
        hint: &'static str,
    ) -> Self {
        match self {
            Self::NotFound(message) => Self::Missing {
                kind,
                name: name.to_owned(),
                place: if environment.is_empty() {
                    String::new()
                } else {
                    format!(" in environment '{environment}'")
                },
                // "Environment 'x' not found", not "… not found in environment 'x'".
                hint: if message.to_lowercase().starts_with("environment") {
                    "`modal environment list` shows the environments; MODAL_ENVIRONMENT or the profile chooses one"
                } else {
                    hint
                },
                message,
            },
            other => other,
        }
    }

    /// True if the server says that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Missing { .. })
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

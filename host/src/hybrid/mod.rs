//! Serves the executor of an Airflow that is not ours: a gRPC service on a unix socket for one caller, the Python package
//! `modalflow`. It starts calls on Modal, follows them to their end, and goes away with its caller.
//!
//! Nothing is kept here that the caller could not tell again. No Postgres, no environment, no word of a DAG.

mod book;
mod calls;
mod ended;
mod files;
mod service;
mod variant;
mod work;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use executor_api::executor_server::ExecutorServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::executor;

pub use calls::Function;
pub use variant::deployed;

type Served = Result<(), tonic::transport::Error>;

/// Between two looks whether the caller is still there.
const LOOK: Duration = Duration::from_millis(500);
/// Cancellations that are under way have this long when the caller leaves.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Thousands of workloads may come in one message.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Where to serve, for whom, and which function as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    pub socket: PathBuf,
    /// The caller's process; we end when it does.
    pub parent: u32,
    pub modal: modal_api::Config,
    pub function: Function,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Modal(modal_api::Error),
    #[error("start a function call")]
    Spawn(#[source] modal_api::Error),
    #[error(transparent)]
    Function(Box<executor::Error>),
    #[error("ask for call {call_id}")]
    Call {
        call_id: String,
        #[source]
        source: Box<modal_api::Error>,
    },
    #[error("executor_config: {}\nhint: {}", .0.problem, .0.hint)]
    ExecutorConfig(model::executor_config::Problem),
    #[error("executor_config is no JSON")]
    NotJson(#[source] serde_json::Error),
    #[error(
        "executor_config: there is no image {name:?}; {}\nhint: airflow modalflow deploy --image-of {name}=REFERENCE deploys it",
        executor::known_images(known)
    )]
    Image { name: String, known: Vec<String> },
    #[error("find the volume for logs")]
    Volume(#[source] modal_api::Error),
    #[error("read {path} on the volume")]
    File {
        path: String,
        #[source]
        source: Box<modal_api::Error>,
    },
    #[error("{0:?} is no path within a volume")]
    Path(String),
    #[error("listen at {}", socket.display())]
    Listen {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("serve the executor")]
    Serve(#[source] tonic::transport::Error),
}

impl From<executor::Error> for Error {
    fn from(error: executor::Error) -> Self {
        match error {
            executor::Error::Image { name, known } => Self::Image { name, known },
            error => Self::Function(Box::new(error)),
        }
    }
}

impl Error {
    fn call(call_id: &str, source: modal_api::Error) -> Self {
        Self::Call {
            call_id: call_id.to_owned(),
            source: Box::new(source),
        }
    }

    fn file(path: &str, source: modal_api::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source: Box::new(source),
        }
    }

    /// What Modal said, if it is Modal's.
    fn modal(&self) -> Option<&modal_api::Error> {
        match self {
            Self::Modal(source) | Self::Spawn(source) | Self::Volume(source) => Some(source),
            Self::Function(error) => error.modal(),
            Self::Call { source, .. } | Self::File { source, .. } => Some(source),
            Self::ExecutorConfig(_)
            | Self::NotJson(_)
            | Self::Image { .. }
            | Self::Path(_)
            | Self::Listen { .. }
            | Self::Serve(_) => None,
        }
    }

    /// Whether the same may succeed a moment later.
    fn is_passing(&self) -> bool {
        self.modal().is_some_and(modal_api::Error::is_passing)
    }

    /// Whether the same may succeed with another token.
    fn is_signed_out(&self) -> bool {
        self.modal().is_some_and(modal_api::Error::is_signed_out)
    }

    /// Whether it says something of the call that was asked for: not of Modal, of our token, or of what we are set up with.
    fn is_about_call(&self) -> bool {
        matches!(
            self,
            Self::Call { source, .. } if matches!(
                **source,
                modal_api::Error::Invalid(_)
                    | modal_api::Error::Decode(_)
                    | modal_api::Error::Unexpected(_)
            )
        )
    }

    fn is_not_found(&self) -> bool {
        self.modal().is_some_and(modal_api::Error::is_not_found)
    }
}

/// Serves until the caller is gone or `stop` is done.
///
/// # Errors
/// [`Error`]
pub async fn serve(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let server_url = settings.modal.server_list();
    let calls = calls::Calls::new(settings.modal, settings.function);
    let work = Arc::new(work::Work::new(calls));
    let listener = listen(&settings.socket).map_err(|source| Error::Listen {
        socket: settings.socket.clone(),
        source,
    })?;
    let service = service::Service::new(Arc::clone(&work), server_url);
    let over = CancellationToken::new();
    let server = Server::builder()
        .add_service(ExecutorServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            over.clone().cancelled_owned(),
        );
    tokio::pin!(server);
    let served = tokio::select! {
        served = &mut server => served,
        () = orphaned(settings.parent) => leave(&over, server).await,
        () = stop => leave(&over, server).await,
    };
    let _ = tokio::time::timeout(LAST_WORDS, work.finish_cancelling()).await;
    let _ = std::fs::remove_file(&settings.socket);
    if let Some(folder) = settings.socket.parent() {
        // The caller made it for the socket alone. Only when nothing else is in it.
        let _ = std::fs::remove_dir(folder);
    }
    served.map_err(Error::Serve)
}

/// Takes no more requests and answers the last ones. A fork of the caller may hold its connection open: not for long.
async fn leave(over: &CancellationToken, server: Pin<&mut impl Future<Output = Served>>) -> Served {
    over.cancel();
    tokio::time::timeout(LAST_WORDS, server)
        .await
        .unwrap_or(Ok(()))
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Ends when another process has become our parent: the one that started us is dead, however it died.
async fn orphaned(parent: u32) {
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The Python side makes its messages from these. `MODALFLOW_WRITE_MESSAGES=1 cargo test …` writes them anew.
    #[test]
    fn the_python_package_has_the_messages_of_the_proto() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("python/modalflow-package/modalflow/executor/messages.binpb");
        if std::env::var_os("MODALFLOW_WRITE_MESSAGES").is_some() {
            std::fs::write(&path, executor_api::DESCRIPTORS).unwrap();
        }
        let written = std::fs::read(&path).unwrap_or_default();
        assert!(
            written == executor_api::DESCRIPTORS,
            "the proto has changed"
        );
    }
}

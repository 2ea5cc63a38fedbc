//! What can keep the emulator from starting, deploying or stopping.

use std::{io, net::SocketAddr, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "another emulator works on {0}\nhint: stop the other process, or use another state directory"
    )]
    InUse(PathBuf),
    #[error("socket path {path} has {length} bytes, {limit} are allowed\nhint: set a shorter socket directory", path = .0.display(), length = .0.as_os_str().len(), limit = crate::MAX_SOCKET_PATH)]
    SocketPathTooLong(PathBuf),
    #[error(
        "listening on {0} is refused: everybody could run code here\nhint: listen on 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    #[error("nothing to listen on\nhint: name a unix socket or a TCP address")]
    NoListener,
    #[error("{path} is not usable", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("function {0} cannot be deployed: {1}")]
    Spec(String, &'static str),
    #[error("{path} cannot run functions: {reason}\nhint: name a Python that has the package modal {version} (pip install modal=={version})", path = .path.display(), version = modal_api::CLIENT_VERSION)]
    Python { path: PathBuf, reason: String },
    #[error("{path} holds no token\nhint: remove it, and a new one is made", path = .0.display())]
    Token(PathBuf),
    #[error("journal record could not be written")]
    Journal(#[source] io::Error),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

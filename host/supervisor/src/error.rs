//! What can go wrong while tasks are run. A failing task is no error: that is a `TaskOutcome`.

use std::path::PathBuf;

/// Why the supervisor could not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("read the worker's configuration: the environment variable {0} is not set")]
    NoConfiguration(&'static str),
    #[error("read the worker's configuration {path}")]
    ReadConfiguration {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("understand the worker's configuration {path}")]
    Configuration {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("understand the workload")]
    Workload(#[source] serde_json::Error),
    #[error(
        "start the Python fork server {python}\nhint: `worker.python` must name a Python with Airflow 3.3.2"
    )]
    StartForkServer {
        python: PathBuf,
        source: std::io::Error,
    },
    #[error("warm up the Python fork server: {0}")]
    ForkServerUnusable(String),
    #[error("get an answer from the Python fork server within {0} s")]
    ForkServerSilent(u64),
    #[error("fork a task: the Python fork server has ended")]
    ForkServerGone,
    #[error("fork a task: {0}")]
    Fork(String),
    #[error("open a socket pair for a task")]
    Sockets(#[source] std::io::Error),
    #[error("keep the environment of tasks")]
    Environment(#[source] std::io::Error),
    #[error("use the Execution API address {url:?}: {reason}")]
    ExecutionApiUrl { url: String, reason: String },
    #[error("reach the container's runtime at {path}")]
    Bridge {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("set up the plugins")]
    Plugins(#[source] plugin_host::Error),
    #[error("talk to Modal as a container")]
    Modal(#[source] modal_api::Error),
}

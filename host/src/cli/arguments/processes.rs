//! Commands that stay, or do what is due.

use std::path::PathBuf;

use clap::Args;

use super::{EnvArguments, OutputArguments};

#[derive(Debug, Args)]
pub(in crate::cli) struct TickArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ServeArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EmulatorArguments {
    /// Address to listen on; port 0 finds a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9988")]
    pub(in crate::cli) listen: std::net::SocketAddr,
    /// Folder for everything that is kept; it need not exist
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) state: PathBuf,
    /// Python with the package modal, to run deployed functions; without one they are refused
    #[arg(long, value_name = "PROGRAM")]
    pub(in crate::cli) python: Option<PathBuf>,
    /// Allow an address that other machines reach: whoever has the token runs code here
    #[arg(long)]
    pub(in crate::cli) beyond_loopback: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WorkerArguments {
    /// The socket of the container's runtime
    #[arg(long, value_name = "PATH", requires = "env")]
    pub(in crate::cli) bridge: Option<PathBuf>,
    /// Name of the environment
    #[arg(short, long, value_name = "NAME")]
    pub(in crate::cli) env: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExecutionApiArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(in crate::cli) host: std::net::IpAddr,
    /// Port to listen on
    #[arg(long, value_name = "PORT")]
    pub(in crate::cli) port: u16,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UiArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// Address to listen on; for functions on Modal
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", hide = true)]
    pub(in crate::cli) host: std::net::IpAddr,
    /// Port to listen on; without it a free one
    #[arg(short, long, value_name = "PORT")]
    pub(in crate::cli) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExecutorArguments {
    /// The unix socket to serve at, in a folder that is the caller's alone
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) socket: PathBuf,
    /// The process to end with
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) parent: u32,
    /// The deployed app
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) app: String,
    /// Its function that runs workloads
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) function: String,
    /// Modal's environment; without it the one of Modal's own settings
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(in crate::cli) environment: String,
    /// What the function was deployed with, as an `executor_config`: cpu, memory, gpu, secrets, volumes
    #[arg(long, value_name = "JSON", default_value = "")]
    pub(in crate::cli) deployed: String,
}

//! Commands about environments.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{EnvArguments, OutputArguments};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EnvCommand {
    /// Show where an environment lies and how to reach it
    Show(EnvShowArguments),
    /// List environments
    List(EnvListArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// Settings of the environment (YAML); without it all have their defaults
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Show what would change on Modal, and change nothing
    #[arg(long, conflicts_with = "emit_python")]
    pub(in crate::cli) plan: bool,
    /// Write the deployment as a Python program for `modal deploy` into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) emit_python: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DestroyArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// Confirm that DAGs, runs, logs and XComs are to be removed
    #[arg(short, long)]
    pub(in crate::cli) yes: bool,
    /// Remove what this machine has of it although its files can't be read, or nothing of it is found on Modal
    #[arg(long)]
    pub(in crate::cli) forget: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EnvShowArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EnvListArguments {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

//! Commands about what has run.

use clap::{Args, Subcommand};

use super::{EnvArguments, OutputArguments, dags::DagArguments};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RunsCommand {
    /// List runs, newest first
    List(RunsListArguments),
    /// Show one run and its task instances
    Show(RunArguments),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TasksCommand {
    /// List the task instances of a run
    List(RunArguments),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum XcomCommand {
    /// Print the value of an XCom as JSON
    Get(XcomArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsListArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// Only runs of this DAG
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) dag_id: Option<String>,
    /// Only runs in this state
    #[arg(short, long, value_name = "STATE", value_parser = ["queued", "running", "success", "failed"])]
    pub(in crate::cli) state: Option<String>,
    /// At most so many
    #[arg(short, long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(i64).range(1..))]
    pub(in crate::cli) limit: i64,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArguments {
    #[command(flatten)]
    pub(in crate::cli) dag: DagArguments,
    /// The run; without it the newest of the DAG
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) run_id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArguments {
    #[command(flatten)]
    pub(in crate::cli) dag: DagArguments,
    /// The run; without it the newest of the DAG
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) run_id: Option<String>,
    /// The task
    #[arg(
        short,
        long,
        value_name = "ID",
        default_value = "",
        hide_default_value = true,
        required_unless_present = "callbacks"
    )]
    pub(in crate::cli) task_id: String,
    /// The callbacks of the DAG and of its deadlines instead of a task
    #[arg(long, conflicts_with_all = ["task_id", "map_index", "try_number", "follow"])]
    pub(in crate::cli) callbacks: bool,
    /// Which instance of a mapped task
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "-1",
        allow_negative_numbers = true
    )]
    pub(in crate::cli) map_index: i32,
    /// Which try; without it the latest
    #[arg(long, value_name = "N")]
    pub(in crate::cli) try_number: Option<u32>,
    /// Go on printing until the try has ended
    #[arg(short, long)]
    pub(in crate::cli) follow: bool,
    /// Print the lines as they are stored, in JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct XcomArguments {
    #[command(flatten)]
    pub(in crate::cli) dag: DagArguments,
    /// The run; without it the newest of the DAG
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) run_id: Option<String>,
    /// The task
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) task_id: String,
    /// Which instance of a mapped task
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "-1",
        allow_negative_numbers = true
    )]
    pub(in crate::cli) map_index: i32,
    /// The key
    #[arg(short, long, default_value = "return_value")]
    pub(in crate::cli) key: String,
}

//! What can be typed: the commands, and what several of them share.

mod dags;
mod environments;
mod history;
mod processes;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use self::dags::{
    DagArguments, DagFilesArguments, DagsCommand, ListArguments, TriggerArguments,
};
pub(super) use self::environments::{
    CreateArguments, DestroyArguments, EnvCommand, EnvListArguments, EnvShowArguments,
};
pub(super) use self::history::{
    LogsArguments, RunArguments, RunsCommand, RunsListArguments, TasksCommand, XcomArguments,
    XcomCommand,
};
pub(super) use self::processes::{
    EmulatorArguments, ExecutionApiArguments, ExecutorArguments, ServeArguments, TickArguments,
    UiArguments, WorkerArguments,
};

/// Run Apache Airflow without servers
///
/// An environment holds DAGs, runs and logs. Ordinary Airflow 3 DAG files go in with `dags create`; `serve` keeps an
/// environment awake, `tick` does once what is due, `ui` opens the real Airflow UI on it.
#[derive(Debug, Parser)]
#[command(
    name = "modalflow-host",
    bin_name = "modalflow-host",
    version,
    max_term_width = 100
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an environment: Python with Airflow, a database, keys, a volume
    ///
    /// With `placement: modal` in the config file it is deployed on Modal; again for one that is there, what has changed
    /// is deployed.
    Create(CreateArguments),
    /// Remove an environment and everything in it
    Destroy(DestroyArguments),
    /// Look at environments
    #[command(subcommand)]
    Env(EnvCommand),
    /// Bring in, look at and trigger DAGs
    #[command(subcommand)]
    Dags(DagsCommand),
    /// Do once what is due, then exit
    ///
    /// With `serve` at work the tick starts what is due and exits. Without, it also runs what it started on this
    /// machine, and exits when nothing is under way any more.
    Tick(TickArguments),
    /// Keep an environment awake until Ctrl-C
    ///
    /// Ticks on schedule and on events, answers the Execution API, and runs tasks on this machine.
    Serve(ServeArguments),
    /// Open the real Airflow UI on an environment until Ctrl-C
    Ui(UiArguments),
    /// Be Modal on this machine, for Modal's own programs, until Ctrl-C
    ///
    /// Answers Modal's API as far as docs/reference/emulator.md says: dicts, queues, secrets, volumes, apps and their
    /// functions. Prints the variables that the official client needs. All state is kept.
    Emulator(EmulatorArguments),
    /// Look at runs
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Look at task instances
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Print the log of a task
    Logs(LogsArguments),
    /// Look at XComs
    #[command(subcommand)]
    Xcom(XcomCommand),
    /// Start, follow and cancel calls on Modal for the executor of another Airflow; started by the Python package `modalflow`
    ///
    /// Serves gRPC (host/executor-api/proto) on a unix socket and ends with the process that started it. Where Modal is and as whom
    /// comes from Modal's own variables and file.
    #[command(hide = true)]
    Executor(ExecutorArguments),
    /// Run tasks that the executor hands out; started by the emulator, or beside Modal's container runtime
    #[command(hide = true)]
    Worker(WorkerArguments),
    /// Answer the Execution API; a function on Modal
    #[command(hide = true)]
    ExecutionApi(ExecutionApiArguments),
    /// Stop the embedded Postgres once nobody uses it; started with it
    #[command(hide = true)]
    PostgresKeeper(EnvArguments),
}

/// Which environment a command is about.
#[derive(Debug, Clone, Args)]
pub(super) struct EnvArguments {
    /// Name of the environment
    #[arg(short, long, env = "MODALFLOW_ENV", value_name = "NAME")]
    pub(super) env: String,
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// Everything, as a JSON array
    Json,
    /// Everything, as YAML
    Yaml,
    /// The table's columns separated by tabs, without a header
    Plain,
}

#[derive(Debug, Clone, Args)]
pub(super) struct OutputArguments {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Format,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}

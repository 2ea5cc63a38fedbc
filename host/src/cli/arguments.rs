//! What can be typed.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};

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

#[derive(Debug, Subcommand)]
pub(super) enum EnvCommand {
    /// Show where an environment lies and how to reach it
    Show(EnvShowArguments),
    /// List environments
    List(EnvListArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum DagsCommand {
    /// Validate DAG files and upload them
    Create(DagFilesArguments),
    /// Validate new versions of DAG files and upload them
    Update(DagFilesArguments),
    /// List DAGs and files that could not be imported
    List(ListArguments),
    /// Remove the file of a DAG; its history stays
    Delete(DagArguments),
    /// Make a run of a DAG
    Trigger(TriggerArguments),
    /// Start no new work of a DAG
    Pause(DagArguments),
    /// Let a paused DAG run again
    Unpause(DagArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum RunsCommand {
    /// List runs, newest first
    List(RunsListArguments),
    /// Show one run and its task instances
    Show(RunArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum TasksCommand {
    /// List the task instances of a run
    List(RunArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum XcomCommand {
    /// Print the value of an XCom as JSON
    Get(XcomArguments),
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

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// Settings of the environment (YAML); without it all have their defaults
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Show what would change on Modal, and change nothing
    #[arg(long, conflicts_with = "emit_python")]
    pub(super) plan: bool,
    /// Write the deployment as a Python program for `modal deploy` into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(super) emit_python: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct DestroyArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// Confirm that DAGs, runs, logs and XComs are to be removed
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Remove what this machine has of it although its files can't be read, or nothing of it is found on Modal
    #[arg(long)]
    pub(super) forget: bool,
}

#[derive(Debug, Args)]
pub(super) struct EnvShowArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct EnvListArguments {
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct DagFilesArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// A DAG file; several may follow
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct DagArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// The DAG
    #[arg(short, long, value_name = "ID")]
    pub(super) dag_id: String,
}

#[derive(Debug, Args)]
pub(super) struct TriggerArguments {
    #[command(flatten)]
    pub(super) dag: DagArguments,
    /// Parameters of the run, a JSON object
    #[arg(short, long, value_name = "JSON")]
    pub(super) conf: Option<String>,
    /// Id of the run; without it Airflow's default
    #[arg(short, long, value_name = "ID")]
    pub(super) run_id: Option<String>,
    /// Logical date of the run, e.g. 2026-01-31 or 2026-01-31T12:00:00+01:00 (without zone: UTC)
    #[arg(short, long, value_name = "DATE", value_parser = date)]
    pub(super) logical_date: Option<DateTime<Utc>>,
    /// The partition that the run is about, for a DAG with partitions
    #[arg(short = 'k', long, value_name = "KEY")]
    pub(super) partition_key: Option<String>,
    /// Wait until the run has ended; exit with 1 unless it succeeded
    #[arg(short, long)]
    pub(super) wait: bool,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct TickArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
}

#[derive(Debug, Args)]
pub(super) struct EmulatorArguments {
    /// Address to listen on; port 0 finds a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9988")]
    pub(super) listen: std::net::SocketAddr,
    /// Folder for everything that is kept; it need not exist
    #[arg(long, value_name = "DIR")]
    pub(super) state: PathBuf,
    /// Python with the package modal, to run deployed functions; without one they are refused
    #[arg(long, value_name = "PROGRAM")]
    pub(super) python: Option<PathBuf>,
    /// Allow an address that other machines reach: whoever has the token runs code here
    #[arg(long)]
    pub(super) beyond_loopback: bool,
}

#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    /// The socket of the container's runtime
    #[arg(long, value_name = "PATH", requires = "env")]
    pub(super) bridge: Option<PathBuf>,
    /// Name of the environment
    #[arg(short, long, value_name = "NAME")]
    pub(super) env: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExecutionApiArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(super) host: std::net::IpAddr,
    /// Port to listen on
    #[arg(long, value_name = "PORT")]
    pub(super) port: u16,
}

#[derive(Debug, Args)]
pub(super) struct UiArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// Address to listen on; for functions on Modal
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", hide = true)]
    pub(super) host: std::net::IpAddr,
    /// Port to listen on; without it a free one
    #[arg(short, long, value_name = "PORT")]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct RunsListArguments {
    #[command(flatten)]
    pub(super) env: EnvArguments,
    /// Only runs of this DAG
    #[arg(short, long, value_name = "ID")]
    pub(super) dag_id: Option<String>,
    /// Only runs in this state
    #[arg(short, long, value_name = "STATE", value_parser = ["queued", "running", "success", "failed"])]
    pub(super) state: Option<String>,
    /// At most so many
    #[arg(short, long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) limit: i64,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) dag: DagArguments,
    /// The run; without it the newest of the DAG
    #[arg(short, long, value_name = "ID")]
    pub(super) run_id: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    #[command(flatten)]
    pub(super) dag: DagArguments,
    /// The run; without it the newest of the DAG
    #[arg(short, long, value_name = "ID")]
    pub(super) run_id: Option<String>,
    /// The task
    #[arg(
        short,
        long,
        value_name = "ID",
        default_value = "",
        hide_default_value = true,
        required_unless_present = "callbacks"
    )]
    pub(super) task_id: String,
    /// The callbacks of the DAG and of its deadlines instead of a task
    #[arg(long, conflicts_with_all = ["task_id", "map_index", "try_number", "follow"])]
    pub(super) callbacks: bool,
    /// Which instance of a mapped task
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "-1",
        allow_negative_numbers = true
    )]
    pub(super) map_index: i32,
    /// Which try; without it the latest
    #[arg(long, value_name = "N")]
    pub(super) try_number: Option<u32>,
    /// Go on printing until the try has ended
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Print the lines as they are stored, in JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct XcomArguments {
    #[command(flatten)]
    pub(super) dag: DagArguments,
    /// The run; without it the newest of the DAG
    #[arg(short, long, value_name = "ID")]
    pub(super) run_id: Option<String>,
    /// The task
    #[arg(short, long, value_name = "ID")]
    pub(super) task_id: String,
    /// Which instance of a mapped task
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "-1",
        allow_negative_numbers = true
    )]
    pub(super) map_index: i32,
    /// The key
    #[arg(short, long, default_value = "return_value")]
    pub(super) key: String,
}

#[derive(Debug, Args)]
pub(super) struct ExecutorArguments {
    /// The unix socket to serve at, in a folder that is the caller's alone
    #[arg(long, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// The process to end with
    #[arg(long, value_name = "PID")]
    pub(super) parent: u32,
    /// The deployed app
    #[arg(long, value_name = "NAME")]
    pub(super) app: String,
    /// Its function that runs workloads
    #[arg(long, value_name = "NAME")]
    pub(super) function: String,
    /// Modal's environment; without it the one of Modal's own settings
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(super) environment: String,
    /// What the function was deployed with, as an `executor_config`: cpu, memory, gpu, secrets, volumes
    #[arg(long, value_name = "JSON", default_value = "")]
    pub(super) deployed: String,
}

fn date(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Ok(date.to_utc());
    }
    for format in [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
    ] {
        if let Ok(date) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(date.and_utc());
        }
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .map(|date| date.and_utc())
        .ok_or_else(|| "a date like 2026-01-31 or 2026-01-31T12:00:00+01:00 is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Arguments, date};

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_date_without_a_zone_is_in_utc() {
        let read = |text| date(text).map_or_else(|error| error, |date| date.to_rfc3339());
        insta::assert_snapshot!(
            ["2026-01-31", "2026-01-31T12:30", "2026-01-31T12:00:00+01:00", "soon"].map(read).join("\n"),
            @r"
        2026-01-31T00:00:00+00:00
        2026-01-31T12:30:00+00:00
        2026-01-31T11:00:00+00:00
        a date like 2026-01-31 or 2026-01-31T12:00:00+01:00 is expected
        "
        );
    }
}

//! The front door: arguments, one function call, output, exit code. No rules and no SQL here.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 something the user can mend, 2 wrong usage, 3 the outside
//! world is away, 101 our own bug.

mod arguments;
mod context;
mod dags;
mod deploy;
mod emulator;
mod environments;
mod executor;
mod exit;
mod logs;
mod output;
mod run_wait;
mod runs;
mod serve;
mod tasks;
mod tick;
mod trigger;
mod ui;
mod worker;
mod xcom;

use std::process::ExitCode;

use clap::Parser;

use arguments::{
    Arguments, Command, DagsCommand, EnvCommand, RunsCommand, TasksCommand, XcomCommand,
};

/// Parses the arguments, runs the command, prints what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return exit::fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    match runtime.block_on(run(arguments.command)) {
        Ok(code) => code,
        Err(error) => exit::fail(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(arguments) => environments::create(arguments).await,
        Command::Destroy(arguments) => environments::destroy(arguments).await,
        Command::Env(EnvCommand::Show(arguments)) => environments::show(arguments).await,
        Command::Env(EnvCommand::List(arguments)) => environments::list(&arguments),
        Command::Dags(command) => match command {
            DagsCommand::Create(arguments) => dags::create(arguments).await,
            DagsCommand::Update(arguments) => dags::update(arguments).await,
            DagsCommand::List(arguments) => dags::list(arguments).await,
            DagsCommand::Delete(arguments) => dags::delete(arguments).await,
            DagsCommand::Trigger(arguments) => trigger::trigger(arguments).await,
            DagsCommand::Pause(arguments) => dags::set_paused(arguments, true).await,
            DagsCommand::Unpause(arguments) => dags::set_paused(arguments, false).await,
        },
        Command::Tick(arguments) => tick::tick(arguments).await,
        Command::Serve(arguments) => serve::serve(arguments).await,
        Command::Emulator(arguments) => emulator::emulator(arguments).await,
        Command::Ui(arguments) => ui::ui(arguments).await,
        Command::Runs(RunsCommand::List(arguments)) => runs::list(arguments).await,
        Command::Runs(RunsCommand::Show(arguments)) => runs::show(arguments).await,
        Command::Tasks(TasksCommand::List(arguments)) => tasks::list(arguments).await,
        Command::Logs(arguments) => logs::logs(arguments).await,
        Command::Xcom(XcomCommand::Get(arguments)) => xcom::get(arguments).await,
        Command::Worker(arguments) => worker::worker(arguments).await,
        Command::ExecutionApi(arguments) => worker::execution_api(arguments).await,
        Command::Executor(arguments) => executor::executor(arguments).await,
        Command::PostgresKeeper(arguments) => worker::postgres_keeper(arguments).await,
    }
}

/// `MODALFLOW_LOG` is a filter in the form of `RUST_LOG`; the default shows what a person must know.
fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("MODALFLOW_LOG").unwrap_or_else(|_| {
        EnvFilter::new("error,modalflow_host=warn,supervisor=info,emulator=warn")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

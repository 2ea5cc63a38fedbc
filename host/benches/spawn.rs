//! What it costs to start task instances: spawns a second that the emulator takes and carries to their end, and the
//! CPU that each costs its caller.
//!
//! `cargo bench --bench spawn`; the emulator and its containers are processes of their own, so that only the caller's
//! CPU is counted as that.

#![expect(clippy::print_stdout, reason = "it is a program that prints figures")]

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use emulator::{Config, Emulator, FunctionSpec, Listen};
use modal_api::Credentials;
use modal_api::container::{Client, Inputs, Outcome};
use modalflow_host::executor::{Deployed, Executor, RUN_TASK, Workload};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::runtime::Runtime;
use uuid::Uuid;

const APP: &str = "bench";
const CALLS: usize = 10_000;
/// As many as a large tick sends out.
const BATCH: usize = 500;
/// Inputs that the container works on at once.
const ROOM: usize = 64;

fn main() -> anyhow::Result<()> {
    if std::env::var_os("MODAL_TASK_ID").is_some() {
        return Runtime::new()?.block_on(container());
    }
    if let Some(folder) = std::env::var_os("BENCH_EMULATOR") {
        return Runtime::new()?.block_on(serve(Path::new(&folder)));
    }
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(folder.path())?;
    let measured = Runtime::new()?.block_on(measure(folder.path()));
    server.0.kill()?;
    server.0.wait()?;
    measured
}

async fn measure(folder: &Path) -> anyhow::Result<()> {
    let url = format!("unix://{}", folder.join("modal.sock").display());
    let client = modal_api::Client::connect(url.parse()?, Credentials::local())?;
    let executor = Executor::new(client, Deployed::here(APP));
    run(&executor, BATCH).await?; // connects, and starts the container
    let cpu = cpu_time()?;
    let began = Instant::now();
    let calls = run(&executor, CALLS).await?;
    let (spawned, spent) = (began.elapsed(), cpu_time()? - cpu);
    for call in &calls {
        while executor
            .fate(call, Duration::from_secs(50))
            .await?
            .is_none()
        {}
    }
    let ended = began.elapsed();
    let rate = |time: Duration| CALLS as f64 / time.as_secs_f64();
    println!("{CALLS} calls, {BATCH} at a time");
    println!("spawned: {:.0} a second", rate(spawned));
    println!(
        "spawned and carried to their end: {:.0} a second",
        rate(ended)
    );
    println!(
        "CPU of the caller: {:.3} ms a spawn",
        spent.as_secs_f64() * 1000.0 / CALLS as f64
    );
    Ok(())
}

async fn run(executor: &Executor, calls: usize) -> anyhow::Result<Vec<String>> {
    let mut started = Vec::with_capacity(calls);
    for _ in 0..calls / BATCH {
        // About as long as a real workload.
        let batch = (0..BATCH)
            .map(|_| Workload {
                dispatch_id: Uuid::now_v7(),
                json: "x".repeat(1500),
                executor_config: serde_json::Value::Null,
            })
            .collect();
        for (_, call) in executor.spawn(batch).await {
            started.push(call?);
        }
    }
    Ok(started)
}

/// User and system time of this process.
fn cpu_time() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(microseconds)?))
}

struct Server(Child);

impl Server {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .env("BENCH_EMULATOR", folder)
            .spawn()?;
        let began = Instant::now();
        while !folder.join("ready").exists() {
            anyhow::ensure!(
                began.elapsed() < Duration::from_secs(30),
                "the emulator does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self(child))
    }
}

async fn serve(folder: &Path) -> anyhow::Result<()> {
    let emulator = Emulator::start(Config {
        state_dir: folder.join("state"),
        socket_dir: folder.join("s"),
        listen: Listen {
            unix: Some(folder.join("modal.sock")),
            ..Listen::default()
        },
        tokens: None,
        python: None,
    })
    .await?;
    let command = vec![std::env::current_exe()?.into_os_string()];
    let mut spec = FunctionSpec::new(
        APP,
        RUN_TASK,
        command,
        folder.to_owned(),
        folder.join("logs"),
    );
    spec.max_containers = 1;
    spec.max_concurrent_inputs = ROOM;
    emulator.deploy(spec).await?;
    std::fs::write(folder.join("ready"), "")?;
    std::future::pending().await
}

/// Returns whatever comes, at once.
async fn container() -> anyhow::Result<()> {
    let client = Client::from_env()?.patience(Duration::from_secs(5));
    client.hello().await?;
    let heart = client.clone();
    tokio::spawn(async move { while heart.heartbeat().await.is_ok() {} });
    while let Ok(Inputs::Work(inputs)) = client.get_inputs(u32::try_from(ROOM)?).await {
        for input in inputs {
            client
                .put_output(&input, Outcome::Returned(ciborium::Value::Null))
                .await?;
        }
    }
    Ok(())
}

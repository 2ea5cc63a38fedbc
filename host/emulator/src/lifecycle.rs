//! The tasks that follow containers: bind the socket, start the process (or take over one of an earlier life), serve it, watch it,
//! and clean up after it.

use std::{io, path::Path, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{net::UnixListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    core::{Core, Order},
    deployed,
    fates::Exit,
    front,
    process::{self, Launch},
    record::{ContainerStarted, Event},
    state::ProcessKey,
};

/// How often output is looked at.
const OUTPUT_INTERVAL: Duration = Duration::from_millis(100);
/// How often a process is looked at that is not our child.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Owns one task for each container, until it is told to halt; then containers live on by themselves.
pub(crate) async fn run(
    core: Arc<Core>,
    adopted: Vec<(String, ProcessKey)>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    halt: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for (task_id, process) in adopted {
        tasks.spawn(adopt(core.clone(), task_id, process, halt.clone()));
    }
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Start(task_id)) => { tasks.spawn(start(core.clone(), task_id, halt.clone())); }
                Some(Order::Kill(task_id)) => { tasks.spawn(process::kill_all(task_id)); }
                Some(Order::Terminate(task_id)) => process::signal(&task_id, Signal::SIGTERM),
                None => break,
            },
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "the task of a container failed");
            },
            () = halt.cancelled() => break,
        }
    }
    // Connections get the answers that are under way.
    while tasks.join_next().await.is_some() {}
}

async fn start(core: Arc<Core>, task_id: String, halt: CancellationToken) {
    let socket = core.socket_path(&task_id);
    let end = CancellationToken::new();
    let exit = match begin(&core, &task_id, &socket) {
        Err(error) => Exit::NotStarted(error),
        Ok((listener, mut child)) => {
            let server = serve(&core, &task_id, listener, halt.clone(), end.clone());
            let watch = async {
                tokio::select! {
                    status = child.wait() => {
                        end.cancel();
                        Some(status)
                    }
                    () = halt.cancelled() => None,
                }
            };
            let output = follow_output(&core, &task_id, &halt, &end);
            match tokio::join!(server, watch, output).1 {
                Some(Ok(status)) => Exit::Status(status),
                Some(Err(error)) => {
                    tracing::error!(%error, task_id, "process could not be waited for");
                    Exit::Unseen
                }
                None => return,
            }
        }
    };
    finish(&core, task_id, &socket, exit).await;
}

async fn adopt(core: Arc<Core>, task_id: String, process: ProcessKey, halt: CancellationToken) {
    let socket = core.socket_path(&task_id);
    let end = CancellationToken::new();
    match bind(&socket) {
        Err(error) => {
            tracing::error!(%error, task_id, "socket could not be bound again: the container is lost");
            process::kill_all(task_id.clone()).await;
        }
        Ok(listener) => {
            let server = serve(&core, &task_id, listener, halt.clone(), end.clone());
            let watch = async {
                while process::is_alive(process) {
                    tokio::select! {
                        () = tokio::time::sleep(WATCH_INTERVAL) => {}
                        () = halt.cancelled() => return false,
                    }
                }
                end.cancel();
                true
            };
            let output = follow_output(&core, &task_id, &halt, &end);
            if !tokio::join!(server, watch, output).1 {
                return;
            }
        }
    }
    finish(&core, task_id, &socket, Exit::Unseen).await;
}

/// Takes what a deployed function's container writes into its app's log, soon after it was written.
async fn follow_output(
    core: &Arc<Core>,
    task_id: &str,
    halt: &CancellationToken,
    end: &CancellationToken,
) {
    if !core.is_deployed(task_id) {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(OUTPUT_INTERVAL) => {
                let (core, task_id) = (core.clone(), task_id.to_owned());
                aside(move || core.pump_logs(&task_id, false)).await;
            }
            () = halt.cancelled() => return,
            () = end.cancelled() => return,
        }
    }
}

fn begin(
    core: &Core,
    task_id: &str,
    socket: &Path,
) -> io::Result<(UnixListener, tokio::process::Child)> {
    let (function, log_path) = {
        let inner = core.lock();
        let container = inner
            .state
            .containers
            .get(task_id)
            .ok_or_else(|| io::Error::other("forgotten"))?;
        let function = inner
            .functions
            .get(&container.function_id)
            .ok_or_else(|| io::Error::other("its function is not deployed"))?;
        if function.spec_hash != container.spec_hash {
            return Err(io::Error::other(
                "its function was deployed anew in the meantime",
            ));
        }
        (
            (function.spec.clone(), function.deployed.clone()),
            container.log_path.clone(),
        )
    };
    let listener = bind(socket)?;
    let (spec, deployed) = function;
    let launch = match deployed {
        Some(deployed) => deployed::launch(core, task_id, &deployed)?,
        None => {
            std::fs::create_dir_all(&spec.log_dir)?;
            Launch::of(&spec, &log_path)
        }
    };
    let child = process::start(&launch, task_id, socket)?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .unwrap_or_default();
    if let Some(ProcessKey { pid, start_time }) = process::key_of(pid) {
        let mut inner = core.lock();
        inner.note(Event::ContainerStarted(ContainerStarted {
            task_id: task_id.to_owned(),
            pid,
            start_time,
        }));
        tracing::info!(task_id, pid, "container started");
        // Sent away before there was a process to kill.
        if inner
            .live
            .get(task_id)
            .is_some_and(|live| live.doom.is_some())
        {
            core.order(Order::Kill(task_id.to_owned()));
        }
    }
    Ok((listener, child))
}

/// What a process leaves behind dies with it, as in a real container.
async fn finish(core: &Arc<Core>, task_id: String, socket: &Path, exit: Exit) {
    process::kill_all(task_id.clone()).await;
    let _ = std::fs::remove_file(socket);
    end(core, task_id, exit).await;
}

pub(crate) async fn end(core: &Arc<Core>, task_id: String, exit: Exit) {
    let core = core.clone();
    aside(move || core.end_container(&task_id, &exit)).await;
}

/// On a thread of its own: output may be much, and requests must not wait for it.
async fn aside(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "seeing to a container failed");
    }
}

pub(crate) fn bind(socket: &Path) -> io::Result<UnixListener> {
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    UnixListener::bind(socket)
}

async fn serve(
    core: &Arc<Core>,
    task_id: &str,
    listener: UnixListener,
    halt: CancellationToken,
    end: CancellationToken,
) {
    let routes = front::routes(core, Some(task_id.to_owned()), halt.clone());
    let shutdown = async {
        tokio::select! {
            () = halt.cancelled() => {}
            () = end.cancelled() => {}
        }
    };
    let server = Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown);
    if let Err(error) = server.await {
        tracing::error!(%error, task_id, "serving a container failed");
    }
}

//! Task runners that wait for a task: one is always forked ahead, so that a task starts without waiting for a fork.
//! A runner that waits has run nothing yet but Airflow's own set-up of its sockets and logging.

use std::{os::fd::OwnedFd, sync::Arc};

use tokio::{
    net::UnixStream,
    sync::{Mutex, oneshot::error::TryRecvError},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Error,
    fork_server::{ForkServer, Forked, Role},
};

/// A runner nobody has greeted yet.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) sockets: Sockets,
    pub(crate) forked: Forked,
}

/// Our ends of a runner's sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) requests: UnixStream,
    pub(crate) stdout: UnixStream,
    pub(crate) stderr: UnixStream,
    pub(crate) logging: UnixStream,
}

/// Where runners come from.
#[derive(Debug)]
pub(crate) struct Runners {
    fork_server: Arc<ForkServer>,
    next: Mutex<AbortOnDropHandle<Result<Runner, Error>>>,
}

impl Runners {
    pub(crate) fn new(fork_server: Arc<ForkServer>) -> Self {
        let next = Mutex::new(fork_ahead(&fork_server));
        Self { fork_server, next }
    }

    /// The runner that was forked ahead, or a new one if that has died meanwhile. The next is being forked already.
    pub(crate) async fn take(&self) -> Result<Runner, Error> {
        let ahead = std::mem::replace(&mut *self.next.lock().await, fork_ahead(&self.fork_server));
        if let Ok(Ok(mut runner)) = ahead.await
            && runner.forked.ended.try_recv() == Err(TryRecvError::Empty)
        {
            return Ok(runner);
        }
        fork(&self.fork_server).await
    }
}

fn fork_ahead(fork_server: &Arc<ForkServer>) -> AbortOnDropHandle<Result<Runner, Error>> {
    let fork_server = Arc::clone(fork_server);
    AbortOnDropHandle::new(tokio::spawn(async move { fork(&fork_server).await }))
}

async fn fork(fork_server: &ForkServer) -> Result<Runner, Error> {
    let (sockets, theirs) = Sockets::open().map_err(Error::Sockets)?;
    let forked = fork_server.fork(&Role::Modalflow, theirs).await?;
    Ok(Runner { sockets, forked })
}

impl Sockets {
    /// Our ends, and the child's in the order in which the fork server expects them.
    pub(crate) fn open() -> std::io::Result<(Self, Vec<OwnedFd>)> {
        let mut theirs = Vec::with_capacity(4);
        let mut pair = || -> std::io::Result<UnixStream> {
            let (ours, child) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            theirs.push(child.into());
            UnixStream::from_std(ours)
        };
        let sockets = Self {
            requests: pair()?,
            stdout: pair()?,
            stderr: pair()?,
            logging: pair()?,
        };
        Ok((sockets, theirs))
    }
}

//! Locks between processes: a file each, held by the kernel for as long as its holder lives.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::{Error, Result};

/// Held until it is dropped or its process ends, however it ends.
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// Takes the lock, waiting at most `limit`. The holder's process id stands in the file for whoever waits.
pub(crate) async fn take(path: &Path, limit: Duration) -> Result<Lock> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))?;
    let began = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // The holder's id is only for people, so a full disk must not stop us here.
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                return Ok(Lock { _file: file });
            }
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(Error::io("lock", path)(errno.into())),
        }
        if began.elapsed() > limit {
            let mut holder = String::new();
            let _ = file
                .rewind()
                .and_then(|()| file.read_to_string(&mut holder));
            return Err(Error::Locked {
                path: path.to_owned(),
                seconds: limit.as_secs(),
                holder: format!("process {} holds it", holder.trim()),
            });
        }
        // flock has no limit of its own; the wait is only ever for another modalflow that sets something up.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

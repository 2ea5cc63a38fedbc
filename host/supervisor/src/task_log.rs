//! A task's log on its way from sockets to the log handler: split into lines, masked, written in batches while the task runs.
//! A slow or broken log handler slows the task's output down or loses lines (and says so); it never holds up a state.

use std::{os::fd::AsRawFd, sync::Arc, time::Duration};

use bytes::Bytes;
use nix::sys::socket::{MsgFlags, recv};
use plugin_host::{LogHandler, LogOutcome, TaskKey};
use tokio::{io::AsyncReadExt, net::UnixStream, sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    log_line::{self, LONGEST},
    mask::Masker,
};

const FLUSH_AFTER: Duration = Duration::from_millis(150);
const FLUSH_BYTES: usize = 64 * 1024;
const WAITING_BATCHES: usize = 16;
const ATTEMPTS: u32 = 3;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
    /// JSON lines of the task's logging.
    Logging,
}

/// Where lines go in. Clones lead to the same log.
#[derive(Clone, Debug)]
pub(crate) struct TaskLog {
    batches: mpsc::Sender<Vec<u8>>,
    pub(crate) masker: Masker,
}

/// The side that writes. Dropping it gives the rest of the log up.
#[derive(Debug)]
pub(crate) struct Writing(AbortOnDropHandle<Writer>);

impl TaskLog {
    pub(crate) fn open(
        handler: Arc<dyn LogHandler>,
        task: TaskKey,
        masker: Masker,
    ) -> (Self, Writing) {
        let (batches, inbox) = mpsc::channel(WAITING_BATCHES);
        let writer = Writer {
            handler,
            task,
            offset: 0,
            lost: 0,
        };
        let writing = Writing(AbortOnDropHandle::new(tokio::spawn(writer.run(inbox))));
        (Self { batches, masker }, writing)
    }

    /// A line of the supervisor's own. Waits a moment at most.
    pub(crate) async fn say(&self, level: &str, event: &str, fields: &[(&str, serde_json::Value)]) {
        let line = log_line::own(level, &self.masker.text(event.to_owned()), "task", fields);
        let _ = self
            .batches
            .send_timeout(line, Duration::from_secs(1))
            .await;
    }

    /// Moves lines from the socket into the log until its end, or until the task has `ended` and all it wrote is read.
    pub(crate) async fn pump(
        self,
        mut socket: UnixStream,
        channel: Channel,
        ended: CancellationToken,
    ) {
        let mut lines = Lines {
            channel,
            masker: self.masker.clone(),
            line: Vec::new(),
            cut: 0,
        };
        let mut chunk = vec![0; 32 * 1024];
        loop {
            let size = tokio::select! {
                read = socket.read(&mut chunk) => read.unwrap_or(0),
                () = ended.cancelled() => break,
            };
            if size == 0 {
                break;
            }
            self.send(lines.split(&chunk[..size])).await;
        }
        while let Ok(size @ 1..) = recv(socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
            self.send(lines.split(&chunk[..size])).await;
        }
        self.send(lines.last()).await;
    }

    async fn send(&self, batch: Vec<u8>) {
        if !batch.is_empty() {
            // The receiver is only gone when the log was given up.
            let _ = self.batches.send(batch).await;
        }
    }
}

impl Writing {
    /// Writes what is left, after all `TaskLog`s are dropped, and closes the log.
    pub(crate) async fn finish(self, outcome: LogOutcome) {
        if let Ok(writer) = self.0.await {
            writer.finish(outcome).await;
        }
    }
}

/// Splits what a socket brings into lines.
struct Lines {
    channel: Channel,
    masker: Masker,
    line: Vec<u8>,
    cut: usize,
}

impl Lines {
    fn split(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut batch = Vec::with_capacity(bytes.len() + 128);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            batch.extend(self.end_line());
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
        batch
    }

    fn last(&mut self) -> Vec<u8> {
        if self.line.is_empty() {
            Vec::new()
        } else {
            self.end_line()
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = LONGEST - self.line.len();
        let kept = &piece[..piece.len().min(room)];
        self.line.extend_from_slice(kept);
        self.cut += piece.len() - kept.len();
    }

    fn end_line(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.cut);
        match self.channel {
            Channel::Stdout => {
                log_line::from_stream(&line, cut, "task.stdout", "info", &self.masker)
            }
            Channel::Stderr => {
                log_line::from_stream(&line, cut, "task.stderr", "error", &self.masker)
            }
            Channel::Logging => {
                log_line::from_logging(&line, cut, &self.masker).unwrap_or_default()
            }
        }
    }
}

struct Writer {
    handler: Arc<dyn LogHandler>,
    task: TaskKey,
    offset: u64,
    lost: u64,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Vec<u8>>) -> Self {
        while let Some(mut batch) = inbox.recv().await {
            let due = Instant::now() + FLUSH_AFTER;
            while batch.len() < FLUSH_BYTES {
                match tokio::time::timeout_at(due, inbox.recv()).await {
                    Ok(Some(more)) => batch.extend_from_slice(&more),
                    Ok(None) | Err(_) => break,
                }
            }
            self.write(Bytes::from(batch)).await;
        }
        self
    }

    async fn write(&mut self, lines: Bytes) {
        for attempt in 1..=ATTEMPTS {
            match self
                .handler
                .append(&self.task, self.offset, lines.clone())
                .await
            {
                Ok(length) => {
                    self.offset = length;
                    return;
                }
                // The same try has been here before: deferred, rescheduled, or started by another worker.
                Err(plugin_host::Error::Conflict { .. }) => {
                    match self.handler.append(&self.task, 0, Bytes::new()).await {
                        Ok(length) => self.offset = length,
                        Err(error) => return self.lose(&lines, &error),
                    }
                }
                Err(error) if error.can_be_retried() && attempt < ATTEMPTS => {
                    tokio::time::sleep(FLUSH_AFTER).await
                }
                Err(error) => return self.lose(&lines, &error),
            }
        }
        tracing::error!(task = ?self.task, "log lines lost: others write the same log");
    }

    fn lose(&mut self, lines: &Bytes, error: &plugin_host::Error) {
        if self.lost == 0 {
            tracing::error!(task = ?self.task, %error, "log lines lost");
        }
        self.lost += lines.len() as u64;
    }

    async fn finish(self, outcome: LogOutcome) {
        if let Err(error) = self.handler.finish(&self.task, outcome).await {
            tracing::error!(task = ?self.task, %error, "log not finished");
        }
        if self.lost > 0 {
            tracing::error!(task = ?self.task, bytes = self.lost, "part of a log was lost");
        }
    }
}

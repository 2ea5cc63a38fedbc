//! The watch over a running task: heartbeats, and the reasons to kill it.

use std::{pin::pin, time::Duration};

use http::Method;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Limits,
    client::{Call, CallError, Session, segment},
    conversation::{Ending, Progress},
    fork_server::Ended,
    task_log::TaskLog,
};

const HEARTBEAT_ANSWER: Duration = Duration::from_secs(5);
const PAUSE_IN_OUTAGE: Duration = Duration::from_secs(2);
const LAST_WAIT: Duration = Duration::from_secs(30);

/// Why a running task was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The server does not want it any more.
    Told,
    /// No heartbeat was answered for too long.
    Outage,
    /// The runner went on long after its task had ended.
    Overtime,
    /// The caller gave the call up.
    Cancelled,
}

/// Whom to watch, and how.
pub(crate) struct Vigil<'a> {
    pub(crate) pid: i32,
    pub(crate) ti_id: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) session: &'a Session,
    pub(crate) limits: &'a Limits,
    pub(crate) log: &'a TaskLog,
    pub(crate) progress: &'a watch::Receiver<Progress>,
}

impl Vigil<'_> {
    /// Waits for the runner's end. The end is unknown if the fork server died with it.
    pub(crate) async fn keep(
        &self,
        ended: &mut oneshot::Receiver<Ended>,
        cancel: &CancellationToken,
    ) -> (Option<Ended>, Option<Stop>) {
        let stop = {
            let heartbeats = pin!(self.heartbeats());
            let overtime = pin!(self.overtime());
            tokio::select! {
                ended = &mut *ended => return (ended.ok(), None),
                stop = heartbeats => stop,
                stop = overtime => stop,
                () = cancel.cancelled() => Stop::Cancelled,
            }
        };
        self.explain(stop).await;
        // `on_kill` runs. A SIGINT would be an exception in the task, and its failure callbacks would run for a try that
        // may go on elsewhere.
        let ended = kill(self.pid, Signal::SIGTERM, ended, self.limits.escalation()).await;
        if stop == Stop::Told {
            self.log.say("error", "Task killed!", &[]).await;
        }
        (ended, Some(stop))
    }

    /// Beats until there is a reason to stop. After the task's end there is nothing to beat for.
    // airflow: ActivitySubprocess._send_heartbeat_if_needed
    async fn heartbeats(&self) -> Stop {
        let body = json!({"hostname": self.hostname, "pid": self.pid});
        let call = Call::new(
            Method::PUT,
            format!("/task-instances/{}/heartbeat", segment(self.ti_id)),
        )
        .json(&body);
        let mut answered = Instant::now();
        let mut pause = self.limits.heartbeat_interval();
        loop {
            sleep(pause).await;
            if self.is_over() {
                std::future::pending::<()>().await;
            }
            let beat = timeout(HEARTBEAT_ANSWER, self.session.attempt(&call)).await;
            let error = match beat {
                Ok(Ok(_)) => {
                    answered = Instant::now();
                    pause = self.limits.heartbeat_interval();
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => CallError::Unreachable("no answer".to_owned()),
            };
            // An answer that overtook the report of the end means that end.
            if self.is_over() {
                continue;
            }
            if matches!(error.status(), Some(404 | 409 | 410)) {
                let event =
                    "Server indicated the task shouldn't be running anymore. Terminating process";
                self.log
                    .say("error", event, &[("detail", error.detail())])
                    .await;
                return Stop::Told;
            }
            tracing::warn!(ti_id = self.ti_id, %error, "heartbeat failed, will be repeated");
            if answered.elapsed() > self.limits.outage() {
                return Stop::Outage;
            }
            pause = self.limits.heartbeat_interval().min(PAUSE_IN_OUTAGE);
        }
    }

    // airflow: ActivitySubprocess._handle_process_overtime_if_needed
    async fn overtime(&self) -> Stop {
        let mut progress = self.progress.clone();
        let over = |progress: &Progress| match progress.ending {
            Ending::AtExit(_) | Ending::Confirmed { .. } | Ending::Refused { .. } => true,
            // The runner still waits for the answer to its last message.
            Ending::Open | Ending::Unconfirmed { .. } => false,
        };
        if progress.wait_for(over).await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(self.limits.overtime()).await;
        Stop::Overtime
    }

    fn is_over(&self) -> bool {
        !matches!(self.progress.borrow().ending, Ending::Open)
    }

    async fn explain(&self, stop: Stop) {
        let seconds = |time: Duration| Value::from(time.as_secs_f64());
        match stop {
            Stop::Told => {}
            Stop::Outage => {
                let event = "The Execution API did not answer a heartbeat for too long. Terminating process";
                self.log
                    .say(
                        "error",
                        event,
                        &[("outage_seconds", seconds(self.limits.outage()))],
                    )
                    .await;
            }
            Stop::Overtime => {
                let event = "The task has ended, but its process goes on. Terminating process";
                self.log
                    .say(
                        "warning",
                        event,
                        &[("overtime_seconds", seconds(self.limits.overtime()))],
                    )
                    .await;
            }
            Stop::Cancelled => {
                self.log
                    .say(
                        "warning",
                        "The call was cancelled. Terminating process",
                        &[],
                    )
                    .await
            }
        }
    }
}

/// Signals the process group, harder each time, until the runner has ended.
// airflow: WatchedSubprocess.kill
pub(crate) async fn kill(
    pid: i32,
    first: Signal,
    ended: &mut oneshot::Receiver<Ended>,
    pause: Duration,
) -> Option<Ended> {
    const PATH: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL];
    for signal in PATH.into_iter().skip_while(|signal| *signal != first) {
        signal_group(pid, signal);
        let wait = if signal == Signal::SIGKILL {
            LAST_WAIT
        } else {
            pause
        };
        if let Ok(ended) = timeout(wait, &mut *ended).await {
            return ended.ok();
        }
    }
    tracing::error!(pid, "a killed process does not end");
    None
}

/// Signals a task runner and all it has started. One that is gone is no error.
pub(crate) fn signal_group(pid: i32, signal: Signal) {
    if let Err(error) = killpg(Pid::from_raw(pid), signal) {
        tracing::debug!(pid, %error, "process group not signalled");
    }
}

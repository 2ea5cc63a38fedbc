//! One try of one task, from the fork to the report of its end.

use std::{path::PathBuf, sync::Arc};

use http::Method;
use nix::sys::signal::Signal;
use plugin_host::{LogHandler, TaskKey, XcomBackend};
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::watch};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    ExecuteTask, Fate, Limits, TaskOutcome,
    callback::Bundle,
    client::{Call, ExecutionApi, Session, segment},
    conversation::{Conversation, Progress},
    fork_server::{ForkServer, Forked},
    frames::{Frames, Reply},
    last_words::LastWords,
    log_line::timestamp,
    mask::Masker,
    messages::XcomAddress,
    runners::{Runner, Runners, Sockets},
    task_log::{Channel, TaskLog},
    vigil::{Stop, Vigil, signal_group},
    xcoms::Xcoms,
};

/// More than the largest XCom: names and numbers beside it.
pub(crate) const FRAME_SLACK: u64 = 1 << 20;

/// What all tasks of a worker share.
pub(crate) struct Shared {
    pub(crate) fork_server: Arc<ForkServer>,
    pub(crate) bundle: Bundle,
    pub(crate) api: ExecutionApi,
    pub(crate) xcom_backend: Arc<dyn XcomBackend>,
    pub(crate) log_handler: Arc<dyn LogHandler>,
    pub(crate) spool: PathBuf,
    pub(crate) limits: Arc<Limits>,
    pub(crate) sensitive_names: String,
    pub(crate) hostname: String,
    pub(crate) user: String,
}

/// Runs the try. Everything that can go wrong is an outcome.
pub(crate) async fn run(
    shared: &Shared,
    runners: &Runners,
    workload: ExecuteTask,
    cancel: &CancellationToken,
) -> TaskOutcome {
    let Runner { sockets, forked } = match runners.take().await {
        Ok(runner) => runner,
        Err(error) => return TaskOutcome::without_process(Fate::NotStarted, crate::chain(&error)),
    };
    let session = shared.api.session(workload.token.clone());
    // The child sets its logging up meanwhile; it waits for the start details before it touches user code.
    let start = tokio::select! {
        start = start(shared, &session, &workload.ti.id, forked.pid) => start,
        () = cancel.cancelled() => Err(TaskOutcome::without_process(Fate::NotStarted, "cancelled before the start")),
    };
    match start {
        Ok(context) => {
            Try {
                shared,
                workload: &workload,
                session,
                context,
            }
            .run(sockets, forked, cancel)
            .await
        }
        Err(outcome) => {
            signal_group(forked.pid, Signal::SIGKILL);
            outcome
        }
    }
}

/// Asks the server for the try; its answer is the run context.
// airflow: TaskInstanceOperations.start
async fn start(
    shared: &Shared,
    session: &Session,
    ti_id: &str,
    pid: i32,
) -> Result<Value, TaskOutcome> {
    let body = json!({
        "state": "running",
        "hostname": shared.hostname,
        "unixname": shared.user,
        "pid": pid,
        "start_date": timestamp(),
    });
    let call = Call::new(
        Method::PATCH,
        format!("/task-instances/{}/run", segment(ti_id)),
    )
    .json(&body);
    let context = session
        .call(&call, shared.limits.report())
        .await
        .and_then(|answer| answer.json::<Value>());
    context.map_err(|error| {
        let fate = match error.status() {
            Some(404 | 409 | 410) => Fate::AlreadyTaken,
            _ => Fate::NotStarted,
        };
        tracing::warn!(ti_id, %error, detail = %error.detail(), "a try was not started");
        TaskOutcome::without_process(fate, format!("{error}: {}", error.detail()))
    })
}

/// A try that the server has given to us.
struct Try<'a> {
    shared: &'a Shared,
    workload: &'a ExecuteTask,
    session: Session,
    context: Value,
}

impl Try<'_> {
    async fn run(
        mut self,
        sockets: Sockets,
        forked: Forked,
        cancel: &CancellationToken,
    ) -> TaskOutcome {
        let Forked { pid, mut ended } = forked;
        let (log, writing) = TaskLog::open(
            Arc::clone(&self.shared.log_handler),
            self.key(),
            Masker::new(&self.shared.sensitive_names),
        );
        let exited = CancellationToken::new();
        let pumps = TaskTracker::new();
        let Sockets {
            requests,
            stdout,
            stderr,
            logging,
        } = sockets;
        for (socket, channel) in [
            (stdout, Channel::Stdout),
            (stderr, Channel::Stderr),
            (logging, Channel::Logging),
        ] {
            pumps.spawn(log.clone().pump(socket, channel, exited.clone()));
        }
        let (progress, watched) = watch::channel(Progress::default());
        let conversation = self
            .greet(
                requests,
                log.clone(),
                pumps.clone(),
                progress,
                (exited.clone(), cancel.clone()),
            )
            .await;
        let conversation = AbortOnDropHandle::new(tokio::spawn(conversation.run()));

        let vigil = Vigil {
            pid,
            ti_id: &self.workload.ti.id,
            hostname: &self.shared.hostname,
            session: &self.session,
            limits: &self.shared.limits,
            log: &log,
            progress: &watched,
        };
        let (ended, stop) = vigil.keep(&mut ended, cancel).await;
        exited.cancel();
        if stop.is_some() || ended.is_none_or(|ended| ended.code != 0) {
            // What the runner has started does not outlive it if it went down itself.
            signal_group(pid, Signal::SIGKILL);
        }
        let fate_and_detail = if matches!(stop, Some(Stop::Told)) {
            conversation.abort();
            (
                Fate::Stopped,
                Some("the server said that the task should not be running any more".to_owned()),
            )
        } else {
            let _ = conversation.await;
            let last_words = LastWords {
                ti_id: &self.workload.ti.id,
                session: &self.session,
                limits: &self.shared.limits,
                log: &log,
                should_retry: self.context["should_retry"].as_bool().unwrap_or(false),
            };
            let progress = watched.borrow().clone();
            last_words.report(ended, stop, progress).await
        };
        let (fate, detail) = fate_and_detail;
        pumps.close();
        pumps.wait().await;
        drop(log);
        writing.finish(fate.log_outcome()).await;
        TaskOutcome {
            state: fate,
            exit: ended.map(|ended| ended.code),
            detail,
            max_rss_kib: ended.map(|ended| ended.max_rss_kib),
            cpu_seconds: ended.map(|ended| ended.cpu_seconds),
        }
    }

    /// Hands the runner what it needs to begin; what it says from then on is the conversation.
    async fn greet(
        &mut self,
        requests: UnixStream,
        log: TaskLog,
        pumps: TaskTracker,
        progress: watch::Sender<Progress>,
        (exited, cancelled): (CancellationToken, CancellationToken),
    ) -> Conversation {
        let limits = Arc::clone(&self.shared.limits);
        let xcoms = Xcoms {
            session: self.session.clone(),
            backend: Arc::clone(&self.shared.xcom_backend),
            spool: self.shared.spool.clone(),
            try_number: self.key().try_number,
            max_bytes: limits.xcom_max_bytes,
            patience: limits.request(),
        };
        self.clear_old_xcoms(&xcoms).await;
        let mut frames = Frames::new(requests, limits.xcom_max_bytes + FRAME_SLACK);
        if let Err(error) = frames.reply(0, Reply::Body(self.startup_details())).await {
            tracing::debug!(ti_id = self.workload.ti.id, %error, "task runner died very early");
        }
        let (session, ti_id) = (self.session.clone(), self.workload.ti.id.clone());
        Conversation {
            frames,
            session,
            ti_id,
            xcoms,
            log,
            pumps,
            limits,
            progress,
            exited,
            cancelled,
        }
    }

    /// Removes what an earlier try has left, as the runner would do first of all; what could not be removed is left to it.
    // airflow: _run_task_and_map_outcome
    async fn clear_old_xcoms(&mut self, xcoms: &Xcoms) {
        let ti = &self.workload.ti;
        let Some(keys) = self.context["xcom_keys_to_clear"].as_array_mut() else {
            return;
        };
        let mut left = Vec::new();
        for key in std::mem::take(keys) {
            let address = XcomAddress {
                dag_id: ti.dag_id.clone(),
                run_id: ti.run_id.clone(),
                task_id: ti.task_id.clone(),
                key: key.as_str().unwrap_or_default().to_owned(),
                map_index: Some(ti.map_index),
            };
            if let Err(error) = xcoms.delete(&address).await {
                tracing::warn!(ti_id = ti.id, %error, "an XCom of an earlier try could not be removed");
                left.push(key);
            }
        }
        *keys = left;
    }

    // airflow: ActivitySubprocess._on_child_started
    fn startup_details(&mut self) -> Value {
        let workload = self.workload;
        // A resumed deferral keeps its first start.
        let start_date = self.context["start_date"]
            .as_str()
            .map_or_else(timestamp, ToOwned::to_owned);
        json!({
            "type": "StartupDetails",
            "ti": workload.ti,
            "dag_rel_path": workload.dag_rel_path,
            "bundle_info": workload.bundle_info,
            "start_date": start_date,
            "ti_context": self.context,
            "sentry_integration": workload.sentry_integration,
        })
    }

    fn key(&self) -> TaskKey {
        let ti = &self.workload.ti;
        TaskKey {
            dag_id: ti.dag_id.clone(),
            run_id: ti.run_id.clone(),
            task_id: ti.task_id.clone(),
            map_index: ti.map_index,
            try_number: u32::try_from(ti.try_number).unwrap_or_default(),
        }
    }
}

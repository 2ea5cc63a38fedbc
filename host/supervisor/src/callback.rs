//! One callback of a DAG, of a task whose try was lost, or of a missed deadline: claimed, run in a fork of the warm
//! Python by Airflow's own code, and reported. Claiming comes first, so that a callback that was handed out twice runs once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::Method;
use nix::sys::signal::Signal;
use plugin_host::{LogOutcome, TaskKey};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::watch};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    RunCallback,
    client::{Call, Session, segment},
    conversation::{Conversation, Progress},
    fork_server::{Ended, Forked, Role},
    frames::{Frames, Reply},
    mask::Masker,
    runners::Sockets,
    task::{FRAME_SLACK, Shared},
    task_log::{Channel, TaskLog},
    vigil,
    xcoms::Xcoms,
};

/// How a callback ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// Airflow's code ran it to the end, and logged what it raised.
    Ran,
    /// Its process ended badly, or took too long.
    Failed { why: String },
    /// Somebody else has it, or it is gone: nothing was run.
    AlreadyTaken,
    /// It could not be claimed or reported, or no process could be had for it.
    Broken { why: String },
}

/// Where DAG files lie: a request names one of them.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// What the server hands out for a claim.
#[derive(Debug, Deserialize)]
struct Claimed {
    /// Which of Airflow's ways of running it.
    kind: Kind,
    /// Airflow's own request, or path and arguments of the callable.
    request: Value,
    timeout_seconds: f64,
    log: LogPlace,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    DagProcessor,
    Executor,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::DagProcessor => "dag_processor",
            Self::Executor => "executor",
        }
    }
}

/// The log that its output is added to.
#[derive(Debug, Deserialize)]
struct LogPlace {
    dag_id: String,
    run_id: String,
    task_id: String,
    map_index: i32,
    try_number: u32,
}

/// Runs the callback. Everything that can go wrong is an outcome.
pub(crate) async fn run(
    shared: &Shared,
    workload: &RunCallback,
    cancel: &CancellationToken,
) -> CallbackOutcome {
    let session = shared.api.session(workload.token.clone());
    let claimed = match claim(shared, &session, workload).await {
        Ok(claimed) => claimed,
        Err(outcome) => return outcome,
    };
    let ended = Running {
        shared,
        session: &session,
        id: &workload.callback_id,
        claimed: &claimed,
    }
    .run(cancel)
    .await;
    report(shared, &session, workload, ended).await
}

async fn claim(
    shared: &Shared,
    session: &Session,
    workload: &RunCallback,
) -> Result<Claimed, CallbackOutcome> {
    // The name of this very attempt: a repeated request is the same claim, a redelivered input another.
    let body = json!({"claim": uuid::Uuid::new_v4()});
    let call = Call::new(Method::PATCH, path(workload, "run")).json(&body);
    session
        .call(&call, shared.limits.report())
        .await
        .and_then(|answer| answer.json::<Claimed>())
        .map_err(|error| match error.status() {
            Some(404 | 409) => CallbackOutcome::AlreadyTaken,
            _ => CallbackOutcome::Broken {
                why: format!("the callback was not claimed: {error}"),
            },
        })
}

async fn report(
    shared: &Shared,
    session: &Session,
    workload: &RunCallback,
    ended: Result<(), String>,
) -> CallbackOutcome {
    let body = match &ended {
        Ok(()) => json!({"state": "success"}),
        Err(why) => json!({"state": "failed", "output": why}),
    };
    let call = Call::new(Method::PATCH, path(workload, "state")).json(&body);
    match (session.call(&call, shared.limits.report()).await, ended) {
        (Ok(_), Ok(())) => CallbackOutcome::Ran,
        (Ok(_), Err(why)) => CallbackOutcome::Failed { why },
        // Deleted meanwhile, with its run.
        (Err(error), _) if error.status() == Some(404) => CallbackOutcome::Ran,
        (Err(error), _) => CallbackOutcome::Broken {
            why: format!("the end of the callback was not reported: {error}"),
        },
    }
}

fn path(workload: &RunCallback, verb: &str) -> String {
    format!("/callbacks/{}/{verb}", segment(&workload.callback_id))
}

/// A callback that is ours.
struct Running<'a> {
    shared: &'a Shared,
    session: &'a Session,
    id: &'a str,
    claimed: &'a Claimed,
}

impl Running<'_> {
    async fn run(&self, cancel: &CancellationToken) -> Result<(), String> {
        let (sockets, theirs) =
            Sockets::open().map_err(|error| format!("no sockets for a process: {error}"))?;
        let role = Role::Callback {
            runs: self.claimed.kind.as_str(),
        };
        let forked = self.shared.fork_server.fork(&role, theirs).await;
        let Forked { pid, mut ended } = forked.map_err(|error| crate::chain(&error))?;
        let (log, writing) = TaskLog::open(
            Arc::clone(&self.shared.log_handler),
            self.log_key(),
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
        let conversation = self
            .greet(requests, log.clone(), pumps.clone(), exited.clone())
            .await;
        let conversation = AbortOnDropHandle::new(tokio::spawn(conversation.run()));
        let limit = Duration::from_secs_f64(self.claimed.timeout_seconds.max(0.1));
        let stopped = tokio::select! {
            ended = &mut ended => Err(ended.ok()),
            () = tokio::time::sleep(limit) => Ok(format!(
                "it ran longer than executor.callback_timeout, {} s", limit.as_secs_f64()
            )),
            () = cancel.cancelled() => Ok("its call was cancelled".to_owned()),
        };
        let result = match stopped {
            Ok(why) => {
                let pause = self.shared.limits.escalation();
                vigil::kill(pid, Signal::SIGTERM, &mut ended, pause).await;
                Err(why)
            }
            Err(ended) => verdict(ended),
        };
        exited.cancel();
        // What the callback has started does not outlive it.
        vigil::signal_group(pid, Signal::SIGKILL);
        let _ = conversation.await;
        if let Err(why) = &result {
            let why = [("why", Value::from(why.as_str()))];
            log.say("error", "The callback failed", &why).await;
        }
        pumps.close();
        pumps.wait().await;
        drop(log);
        writing
            .finish(match &result {
                Ok(()) => LogOutcome::Success,
                Err(_) => LogOutcome::Failed,
            })
            .await;
        result
    }

    /// Hands the process what to run; what it asks for from then on is the conversation.
    async fn greet(
        &self,
        requests: UnixStream,
        log: TaskLog,
        pumps: TaskTracker,
        exited: CancellationToken,
    ) -> Conversation {
        let limits = Arc::clone(&self.shared.limits);
        let mut frames = Frames::new(requests, limits.xcom_max_bytes + FRAME_SLACK);
        if let Err(error) = frames.reply(0, Reply::Body(self.first_message())).await {
            tracing::debug!(callback_id = self.id, %error, "a callback's process died very early");
        }
        Conversation {
            frames,
            session: self.session.clone(),
            ti_id: self.id.to_owned(),
            xcoms: Xcoms {
                session: self.session.clone(),
                backend: Arc::clone(&self.shared.xcom_backend),
                spool: self.shared.spool.clone(),
                try_number: 0,
                max_bytes: limits.xcom_max_bytes,
                patience: limits.request(),
            },
            log,
            pumps,
            limits,
            // Nothing that a callback says ends a try.
            progress: watch::channel(Progress::default()).0,
            exited,
            cancelled: CancellationToken::new(),
        }
    }

    fn first_message(&self) -> Value {
        let folder = &self.shared.bundle.path;
        let request = &self.claimed.request;
        match self.claimed.kind {
            // airflow: DagFileProcessorProcess._on_child_started
            Kind::DagProcessor => json!({
                "type": "DagFileParseRequest",
                "file": folder.join(request["filepath"].as_str().unwrap_or_default()),
                "bundle_path": folder,
                "bundle_name": self.shared.bundle.name,
                "callback_requests": [request],
            }),
            // airflow: CallbackSubprocess.start
            Kind::Executor => json!({
                "path": request["path"],
                "kwargs": request["kwargs"],
                "dag_rel_path": request["dag_rel_path"],
                "bundle_path": folder,
            }),
        }
    }

    fn log_key(&self) -> TaskKey {
        let place = &self.claimed.log;
        TaskKey {
            dag_id: place.dag_id.clone(),
            run_id: place.run_id.clone(),
            task_id: place.task_id.clone(),
            map_index: place.map_index,
            try_number: place.try_number,
        }
    }
}

/// `None`: the fork server died, and the process with it.
fn verdict(ended: Option<Ended>) -> Result<(), String> {
    match ended.map(|ended| ended.code) {
        Some(0) => Ok(()),
        Some(code) if code < 0 => Err(format!("its process was killed by signal {}", -code)),
        Some(code) => Err(format!("its process ended with code {code}")),
        None => Err("the Python fork server died".to_owned()),
    }
}

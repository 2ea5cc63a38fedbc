//! The conversation with one task runner: each request is answered from the Execution API, and how the task ended is noted.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Limits,
    client::{Answer, Call, CallError, Session, segment},
    frames::{Frames, Reply, Request},
    lookups::{self, Lookup, Shape},
    messages::{Object, TaskState, ToSupervisor, TriggerDagRun},
    task_log::{Channel, TaskLog},
    xcoms::{Slice, XcomError, Xcoms},
};

/// What is known of a task's end.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ending {
    /// The runner has said nothing yet.
    #[default]
    Open,
    /// To be reported when the runner has exited.
    AtExit(TaskState),
    /// Said by the runner; the server has not confirmed it yet.
    Unconfirmed { state: String, body: Value },
    /// The server has it.
    Confirmed { state: String },
    /// The server wants no end of this try any more.
    Refused { reason: String },
}

/// What the conversation tells the rest of the supervisor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) ending: Ending,
    pub(crate) rendered_map_index: Option<String>,
}

/// One runner's requests and what is needed to answer them.
pub(crate) struct Conversation {
    pub(crate) frames: Frames,
    pub(crate) session: Session,
    pub(crate) ti_id: String,
    pub(crate) xcoms: Xcoms,
    pub(crate) log: TaskLog,
    pub(crate) pumps: TaskTracker,
    pub(crate) limits: Arc<Limits>,
    pub(crate) progress: watch::Sender<Progress>,
    /// The runner has exited: what is still in the socket is all there will be.
    pub(crate) exited: CancellationToken,
    /// The call was given up. A failure that follows is not the task's: whoever knows of the call's end judges it.
    pub(crate) cancelled: CancellationToken,
}

impl Conversation {
    /// Answers until the runner hangs up, or has exited and all its last words are read.
    pub(crate) async fn run(mut self) {
        loop {
            let request = tokio::select! {
                request = self.frames.next() => request,
                () = self.exited.cancelled() => break,
            };
            match request {
                Ok(Some(request)) => self.serve(request).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(ti_id = self.ti_id, %error, "task runner hung up");
                    return;
                }
            }
        }
        while let Some(request) = self.frames.leftover() {
            self.serve(request).await;
        }
    }

    async fn serve(&mut self, request: Request) {
        let (id, reply) = match request {
            Request::Message { id, body, trace } => match ToSupervisor::read(&body) {
                Ok(message) => {
                    drop(body);
                    (id, self.answer(message, trace).await)
                }
                Err(error) => {
                    tracing::error!(ti_id = self.ti_id, %error, "task runner sent a message that is not known");
                    (id, unhandled(&format!("Unhandled request: {error}")))
                }
            },
            Request::TooLarge { id, size, limit } => {
                let hint = "hint: raise `xcom.max_bytes` in the environment's config.yaml, or store the data elsewhere and push where it is";
                (
                    id,
                    unhandled(&format!(
                        "a message of {size} bytes is over the limit of {limit} bytes\n{hint}"
                    )),
                )
            }
            Request::Unreadable { id, reason } => (id, unhandled(&reason)),
        };
        if let Err(error) = self.frames.reply(id, reply).await {
            tracing::debug!(ti_id = self.ti_id, %error, "task runner did not wait for its answer");
        }
    }

    async fn answer(&mut self, message: ToSupervisor, trace: Option<String>) -> Reply {
        use ToSupervisor as M;
        let message = match message {
            M::SucceedTask(fields) => return self.end("success", fields).await,
            M::RetryTask(fields) => return self.end("up_for_retry", fields).await,
            M::DeferTask(fields) => return self.end("deferred", fields).await,
            M::RescheduleTask(fields) => return self.end("up_for_reschedule", fields).await,
            M::AwaitInputTask(fields) => return self.end("awaiting_input", fields).await,
            M::TaskState(state) if self.is_of_the_cancellation(&state.state) => {
                return self.hold().await;
            }
            M::TaskState(state) => {
                self.progress
                    .send_modify(|progress| progress.ending = Ending::AtExit(state));
                return Reply::Nothing;
            }
            other => other,
        };
        if let M::SetRenderedMapIndex { rendered_map_index } = &message {
            self.progress.send_modify(|progress| {
                progress.rendered_map_index = Some(rendered_map_index.clone())
            });
        }
        // Nobody waits for these once the runner is gone; a server that is away must not hold up the report of its end.
        let exited = self.exited.clone();
        tokio::select! {
            reply = self.look_up(message, trace) => reply,
            () = exited.cancelled() => Reply::Nothing,
        }
    }

    async fn look_up(&self, message: ToSupervisor, trace: Option<String>) -> Reply {
        use ToSupervisor as M;
        let rest = match lookups::lookup(message, &self.ti_id) {
            Ok(lookup) => return self.execute(lookup, trace).await,
            Err(rest) => *rest,
        };
        match rest {
            M::SetXCom(message) => or_error(self.xcoms.set(message).await),
            M::DeleteXCom(address) => or_error(self.xcoms.delete(&address).await),
            M::GetXCom {
                address,
                include_prior_dates,
            } => or_error(self.xcoms.get(&address, include_prior_dates).await),
            M::GetXComCount(address) => or_error(self.xcoms.count(&address).await),
            M::GetXComSequenceItem { address, offset } => {
                or_error(self.xcoms.item(&address, offset).await)
            }
            M::GetXComSequenceSlice {
                address,
                start,
                stop,
                step,
                include_prior_dates,
            } => or_error(
                self.xcoms
                    .slice(
                        &address,
                        Slice {
                            start,
                            stop,
                            step,
                            include_prior_dates,
                        },
                    )
                    .await,
            ),
            M::TriggerDagRun(message) => self.trigger(&message, trace).await,
            M::MaskSecret { value, name } => {
                self.log.masker.add(&value, name.as_deref());
                Reply::Nothing
            }
            M::ResendLoggingFD {} => self.new_log_socket(),
            _ => unhandled("Unhandled request"),
        }
    }

    async fn execute(&self, lookup: Lookup, trace: Option<String>) -> Reply {
        let Lookup {
            call,
            shape,
            missing,
            guarded,
            tolerated,
        } = lookup;
        let error = match self
            .session
            .call(&call.trace(trace), self.limits.request())
            .await
        {
            Ok(answer) => {
                return self
                    .shape(shape, &answer)
                    .unwrap_or_else(|error| Reply::Error(error.to_error_response()));
            }
            Err(error) => error,
        };
        match (error.status(), missing, guarded) {
            (Some(404), Some(missing), _) => Reply::Body(missing),
            (Some(status @ (401 | 403)), _, Some((name, value))) => {
                let detail = json!({name: value, "status_code": status});
                Reply::Body(
                    json!({"error": "PERMISSION_DENIED", "detail": detail, "type": "ErrorResponse"}),
                )
            }
            (status, ..) if status.is_some() && status == tolerated => Reply::Nothing,
            _ => {
                tracing::error!(ti_id = self.ti_id, %error, "API server error");
                Reply::Error(error.to_error_response())
            }
        }
    }

    fn shape(&self, shape: Shape, answer: &Answer) -> Result<Reply, CallError> {
        Ok(match shape {
            Shape::Nothing => Reply::Nothing,
            Shape::Done => done(),
            Shape::Field(kind, field) => {
                Reply::Body(json!({"type": kind, field: answer.json::<Value>()?}))
            }
            Shape::Object(kind) => {
                let mut object: Object = answer.json()?;
                self.mask(kind, &object);
                object.insert("type".to_owned(), kind.into());
                Reply::Body(Value::Object(object))
            }
        })
    }

    /// What comes with a connection or variable is secret before the task sees it.
    // airflow: handle_get_connection, handle_get_variable
    fn mask(&self, kind: &str, object: &Object) {
        match kind {
            "ConnectionResult" => {
                for secret in ["password", "extra"] {
                    self.log
                        .masker
                        .add(object.get(secret).unwrap_or(&Value::Null), None);
                }
            }
            "VariableResult" => {
                let name = object.get("key").and_then(Value::as_str);
                self.log
                    .masker
                    .add(object.get("value").unwrap_or(&Value::Null), name);
            }
            _ => {}
        }
    }

    // airflow: DagRunOperations.trigger
    async fn trigger(&self, message: &TriggerDagRun, trace: Option<String>) -> Reply {
        let error = match self
            .session
            .call(
                &lookups::trigger(message).trace(trace),
                self.limits.request(),
            )
            .await
        {
            Ok(_) => return done(),
            Err(error) => error,
        };
        if error.status() != Some(409) {
            return Reply::Error(error.to_error_response());
        }
        if message.reset_dag_run != Some(true) {
            return Reply::Body(
                json!({"error": "DAGRUN_ALREADY_EXISTS", "detail": null, "type": "ErrorResponse"}),
            );
        }
        match self
            .session
            .call(&lookups::clear(message), self.limits.request())
            .await
        {
            Ok(_) => done(),
            Err(error) => Reply::Error(error.to_error_response()),
        }
    }

    /// A second channel for log lines, for a process that the task has started.
    fn new_log_socket(&self) -> Reply {
        let pair = std::os::unix::net::UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((UnixStream::from_std(ours)?, theirs))
        });
        match pair {
            Ok((ours, theirs)) => {
                self.pumps.spawn(self.log.clone().pump(
                    ours,
                    Channel::Logging,
                    self.exited.clone(),
                ));
                Reply::LogSocket(theirs.into())
            }
            Err(error) => unhandled(&format!("no log socket: {error}")),
        }
    }

    /// Whether a task says so because it was interrupted.
    fn is_of_the_cancellation(&self, state: &str) -> bool {
        self.cancelled.is_cancelled() && matches!(state, "failed" | "up_for_retry")
    }

    /// Leaves the runner without an answer until it is killed: with one it would run callbacks of a try that may go on elsewhere.
    async fn hold(&self) -> Reply {
        self.exited.cancelled().await;
        Reply::Nothing
    }

    /// Reports an end at once. It stays noted until the server has it, and is tried again after the runner's exit.
    // airflow: ActivitySubprocess._send_terminal_state_msg
    async fn end(&mut self, state: &str, fields: Object) -> Reply {
        if self.is_of_the_cancellation(state) {
            return self.hold().await;
        }
        let mut body = fields;
        body.remove("type");
        body.insert("state".to_owned(), state.into());
        let body = Value::Object(body);
        let unconfirmed = Ending::Unconfirmed {
            state: state.to_owned(),
            body: body.clone(),
        };
        self.progress
            .send_modify(|progress| progress.ending = unconfirmed);
        match report(&self.session, &self.ti_id, state, &body, &self.limits).await {
            Ok(ending) => {
                let reply = match &ending {
                    Ending::Refused { reason, .. } => unhandled(reason),
                    _ => Reply::Nothing,
                };
                self.progress
                    .send_modify(|progress| progress.ending = ending);
                reply
            }
            Err(error) => Reply::Error(error.to_error_response()),
        }
    }
}

/// Tells the server how the task ended, for as long as `report_seconds` allow. An error means that the server has not taken it
/// and might still.
pub(crate) async fn report(
    session: &Session,
    ti_id: &str,
    state: &str,
    body: &Value,
    limits: &Limits,
) -> Result<Ending, CallError> {
    let call = Call::new(
        Method::PATCH,
        format!("/task-instances/{}/state", segment(ti_id)),
    )
    .json(body);
    if let Err(error) = session.make_durable().await {
        tracing::error!(ti_id, state, %error, "the end of a try is not reported");
        return Err(error);
    }
    match session.call(&call, limits.report()).await {
        Ok(_) => Ok(Ending::Confirmed {
            state: state.to_owned(),
        }),
        Err(error) if matches!(error.status(), Some(404 | 409 | 410)) => {
            let reason = format!(
                "the server did not take the state {state}: {error}: {}",
                error.detail()
            );
            tracing::warn!(ti_id, reason, "the end of a try is not wanted any more");
            Ok(Ending::Refused { reason })
        }
        Err(error) => {
            tracing::error!(ti_id, state, %error, detail = %error.detail(), "the end of a try could not be reported");
            Err(error)
        }
    }
}

fn or_error(reply: Result<Reply, XcomError>) -> Reply {
    reply.unwrap_or_else(|error| Reply::Error(error.to_error_response()))
}

fn done() -> Reply {
    Reply::Body(json!({"ok": true, "type": "OKResponse"}))
}

fn unhandled(message: &str) -> Reply {
    Reply::Error(
        json!({"error": "API_SERVER_ERROR", "detail": {"status_code": 400, "message": message}, "type": "ErrorResponse"}),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, http::Uri, routing::patch};
    use serde_json::json;

    use super::report;
    use crate::{
        Limits,
        client::{Durable, ExecutionApi},
    };

    /// What happened, in order.
    #[derive(Debug, Clone, Default)]
    struct Events(Arc<Mutex<Vec<String>>>);

    impl Events {
        fn add(&self, what: impl Into<String>) {
            self.0.lock().unwrap().push(what.into());
        }
    }

    #[derive(Debug)]
    struct Volume {
        events: Events,
        answer: Result<(), String>,
    }

    #[async_trait::async_trait]
    impl Durable for Volume {
        async fn commit(&self) -> Result<(), String> {
            self.events.add("commit");
            self.answer.clone()
        }
    }

    /// Reports an end where commits are answered so.
    async fn events_with(answer: Result<(), String>) -> String {
        let events = Events::default();
        let heard = events.clone();
        let hear = move |uri: Uri| async move { heard.add(format!("report {uri}")) };
        let router = Router::new().route("/task-instances/{id}/state", patch(hear));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let volume = Volume {
            events: events.clone(),
            answer,
        };
        let session = ExecutionApi::new(&url)
            .unwrap()
            .durably(Some(Arc::new(volume)))
            .session("token".to_owned());
        let limits = Limits::default();
        let ended = report(&session, "ti", "success", &json!({}), &limits).await;
        server.abort();
        match ended {
            Ok(_) => events.add("the end is told"),
            Err(error) => events.add(error.to_string()),
        }
        let events = events.0.lock().unwrap();
        events.join("\n")
    }

    #[tokio::test]
    async fn an_end_is_reported_after_what_was_written_is_safe() {
        insta::assert_snapshot!(events_with(Ok(())).await, @r"
        commit
        report /task-instances/ti/state
        the end is told
        ");
        insta::assert_snapshot!(events_with(Err("the disk is full".to_owned())).await, @r"
        commit
        what the task has written could not be made durable: the disk is full
        ");
    }
}

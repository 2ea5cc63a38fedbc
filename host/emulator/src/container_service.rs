//! The RPCs of one container. Which container it is follows from the socket that the call came through.

use std::{sync::Arc, time::Duration};

use modal_api::wire;
use tokio::time::Instant;
use tonic::Status;

use crate::{ask::Ask, callers::not_written, clock::until, core::Core, dispatch::Take};

/// A poll is answered after this time at the latest, so that a dead peer is noticed.
const HOLD: Duration = Duration::from_secs(10);
/// The official client gives a heartbeat 10.1 s.
const HEARTBEAT_HOLD: Duration = Duration::from_millis(9500);

pub(crate) fn hello(ask: &Ask, (): ()) -> Result<(), Status> {
    let task_id = task_id(ask)?;
    tracing::debug!(task_id, "container says hello");
    ask.core
        .bells(task_id)
        .map(|_| ())
        .ok_or_else(|| unknown(task_id))
}

pub(crate) async fn heartbeat(
    ask: &Ask,
    _: wire::ContainerHeartbeatRequest,
) -> Result<wire::ContainerHeartbeatResponse, Status> {
    let task_id = task_id(ask)?;
    let bell = ask
        .core
        .bells(task_id)
        .ok_or_else(|| unknown(task_id))?
        .cancel;
    let end = Instant::now() + HEARTBEAT_HOLD;
    loop {
        // Registered before looking, so that a ring in between is heard.
        let mut ring = std::pin::pin!(bell.notified());
        ring.as_mut().enable();
        let cancel_input_event = ask.core.cancellations(task_id, &ask.key);
        if cancel_input_event.is_some() || Instant::now() >= end || ask.halt.is_cancelled() {
            return Ok(wire::ContainerHeartbeatResponse { cancel_input_event });
        }
        tokio::select! {
            () = ring => {}
            () = tokio::time::sleep_until(end) => {}
            () = ask.halt.cancelled() => {}
        }
    }
}

pub(crate) async fn get_inputs(
    ask: &Ask,
    request: wire::FunctionGetInputsRequest,
) -> Result<wire::FunctionGetInputsResponse, Status> {
    let task_id = task_id(ask)?;
    let core = &ask.core;
    let batch = usize::try_from(request.batch_max_size).unwrap_or(1).max(1);
    let bell = core.bells(task_id).ok_or_else(|| unknown(task_id))?.work;
    let end = Instant::now() + HOLD;
    let _poll = Poll::begin(core.clone(), task_id);
    loop {
        let mut ring = std::pin::pin!(bell.notified());
        ring.as_mut().enable();
        let idle_end = match core
            .take_inputs(task_id, &ask.key, batch)
            .map_err(not_written)?
        {
            Take::Unknown => return Err(unknown(task_id)),
            Take::Leave => {
                return Ok(inputs(vec![wire::FunctionGetInputsItem {
                    kill_switch: true,
                    ..Default::default()
                }]));
            }
            Take::Inputs(ids) => return Ok(inputs(core.input_items(&ids))),
            Take::Wait { until: moment } => {
                Instant::now() + until(moment, core.clock.now()).min(HOLD)
            }
        };
        if Instant::now() >= end || ask.halt.is_cancelled() {
            return Ok(inputs(Vec::new()));
        }
        tokio::select! {
            () = ring => {}
            () = tokio::time::sleep_until(end.min(idle_end)) => {}
            () = ask.halt.cancelled() => {}
        }
    }
}

pub(crate) fn put_outputs(
    ask: &Ask,
    request: wire::FunctionPutOutputsRequest,
) -> Result<(), Status> {
    let task_id = task_id(ask)?;
    // What was printed before the result is in the log when the result is there.
    ask.core.pump_logs(task_id, true);
    ask.core
        .put_outputs(task_id, request.outputs)
        .map_err(not_written)
}

/// As many inputs at once as the function allows while there is a queue, else as many as it likes.
pub(crate) fn dynamic_concurrency(
    ask: &Ask,
    request: wire::FunctionGetDynamicConcurrencyRequest,
) -> Result<wire::FunctionGetDynamicConcurrencyResponse, Status> {
    task_id(ask)?;
    let inner = ask.core.lock();
    let waiting = inner.state.queues.get(&request.function_id);
    let concurrency = if waiting.is_some_and(|queue| !queue.is_empty()) {
        request.max_concurrency
    } else {
        request.target_concurrency
    };
    Ok(wire::FunctionGetDynamicConcurrencyResponse { concurrency })
}

pub(crate) fn task_result(ask: &Ask, request: wire::TaskResultRequest) -> Result<(), Status> {
    ask.core
        .task_result(task_id(ask)?, request.result.unwrap_or_default());
    Ok(())
}

/// The server in a container has been started; whether it listens already is seen when it is asked.
pub(crate) fn server_ready(
    ask: &Ask,
    _: wire::ContainerServerLifecycleReadyRequest,
) -> Result<(), Status> {
    ask.core.server_is_ready(task_id(ask)?);
    Ok(())
}

/// The container that asks; callers are refused.
fn task_id(ask: &Ask) -> Result<&str, Status> {
    ask.task_id.as_deref().ok_or_else(|| {
        Status::permission_denied("only containers ask this, each at its own socket")
    })
}

fn unknown(task_id: &str) -> Status {
    Status::not_found(format!("container {task_id} is not known"))
}

fn inputs(inputs: Vec<wire::FunctionGetInputsItem>) -> wire::FunctionGetInputsResponse {
    wire::FunctionGetInputsResponse {
        inputs,
        rate_limit_sleep_duration: 0.0,
    }
}

/// Counts a request that waits, also when the peer goes away in the middle of it.
struct Poll<'a> {
    core: Arc<Core>,
    task_id: &'a str,
}

impl<'a> Poll<'a> {
    fn begin(core: Arc<Core>, task_id: &'a str) -> Self {
        core.poll_begins(task_id);
        Self { core, task_id }
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.core.poll_ends(self.task_id);
    }
}

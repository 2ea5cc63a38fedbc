//! The RPCs of one container. Which container it is follows from the socket that the call came through.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use modal_api::wire::{self, modal_client_server::ModalClient};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::{callers::not_written, clock::until, core::Core, dispatch::Take};

/// A poll is answered after this time at the latest, so that a dead peer is noticed.
const HOLD: Duration = Duration::from_secs(10);
/// The official client gives a heartbeat 10.1 s.
const HEARTBEAT_HOLD: Duration = Duration::from_millis(9500);

pub(crate) struct ContainerService {
    core: Weak<Core>,
    task_id: String,
    halt: CancellationToken,
}

impl ContainerService {
    pub(crate) fn new(core: Weak<Core>, task_id: String, halt: CancellationToken) -> Self {
        Self {
            core,
            task_id,
            halt,
        }
    }

    fn core(&self) -> Result<Arc<Core>, Status> {
        self.core
            .upgrade()
            .ok_or_else(|| Status::unavailable("the emulator has ended"))
    }

    fn unknown(&self) -> Status {
        Status::not_found(format!("container {} is not known", self.task_id))
    }
}

pub(crate) fn idempotency_key<T>(request: &Request<T>) -> String {
    request
        .metadata()
        .get(wire::IDEMPOTENCY_KEY)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

#[async_trait]
impl ModalClient for ContainerService {
    async fn container_hello(&self, _: Request<()>) -> Result<Response<()>, Status> {
        tracing::debug!(task_id = self.task_id, "container says hello");
        self.core()?
            .bells(&self.task_id)
            .map(|_| Response::new(()))
            .ok_or_else(|| self.unknown())
    }

    async fn container_heartbeat(
        &self,
        request: Request<wire::ContainerHeartbeatRequest>,
    ) -> Result<Response<wire::ContainerHeartbeatResponse>, Status> {
        let core = self.core()?;
        let key = idempotency_key(&request);
        let bell = core
            .bells(&self.task_id)
            .ok_or_else(|| self.unknown())?
            .cancel;
        let end = Instant::now() + HEARTBEAT_HOLD;
        loop {
            // Registered before looking, so that a ring in between is heard.
            let mut ring = std::pin::pin!(bell.notified());
            ring.as_mut().enable();
            let cancel_input_event = core.cancellations(&self.task_id, &key);
            if cancel_input_event.is_some() || Instant::now() >= end || self.halt.is_cancelled() {
                return Ok(Response::new(wire::ContainerHeartbeatResponse {
                    cancel_input_event,
                }));
            }
            tokio::select! {
                () = ring => {}
                () = tokio::time::sleep_until(end) => {}
                () = self.halt.cancelled() => {}
            }
        }
    }

    async fn function_get_inputs(
        &self,
        request: Request<wire::FunctionGetInputsRequest>,
    ) -> Result<Response<wire::FunctionGetInputsResponse>, Status> {
        let core = self.core()?;
        let key = idempotency_key(&request);
        let batch = usize::try_from(request.get_ref().batch_max_size)
            .unwrap_or(1)
            .max(1);
        let bell = core
            .bells(&self.task_id)
            .ok_or_else(|| self.unknown())?
            .work;
        let end = Instant::now() + HOLD;
        let _poll = Poll::begin(core.clone(), &self.task_id);
        loop {
            let mut ring = std::pin::pin!(bell.notified());
            ring.as_mut().enable();
            let idle_end = match core
                .take_inputs(&self.task_id, &key, batch)
                .map_err(not_written)?
            {
                Take::Unknown => return Err(self.unknown()),
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
            if Instant::now() >= end || self.halt.is_cancelled() {
                return Ok(inputs(Vec::new()));
            }
            tokio::select! {
                () = ring => {}
                () = tokio::time::sleep_until(end.min(idle_end)) => {}
                () = self.halt.cancelled() => {}
            }
        }
    }

    async fn function_put_outputs(
        &self,
        request: Request<wire::FunctionPutOutputsRequest>,
    ) -> Result<Response<()>, Status> {
        self.core()?
            .put_outputs(&self.task_id, request.into_inner().outputs)
            .map_err(not_written)?;
        Ok(Response::new(()))
    }

    async fn task_result(
        &self,
        request: Request<wire::TaskResultRequest>,
    ) -> Result<Response<()>, Status> {
        self.core()?.task_result(
            &self.task_id,
            request.into_inner().result.unwrap_or_default(),
        );
        Ok(Response::new(()))
    }
}

fn inputs(inputs: Vec<wire::FunctionGetInputsItem>) -> Response<wire::FunctionGetInputsResponse> {
    Response::new(wire::FunctionGetInputsResponse {
        inputs,
        rate_limit_sleep_duration: 0.0,
    })
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

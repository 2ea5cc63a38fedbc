//! The RPCs of those who call functions. What is not here answers UNIMPLEMENTED.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use modal_api::{
    MAX_ASYNC_INLINE_BYTES, MAX_INLINE_BYTES, MAX_OUTPUTS_WAIT,
    wire::{
        self,
        function::{DefinitionType, FunctionType},
        modal_client_server::ModalClient,
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::{
    callers::Outputs,
    container_service::idempotency_key,
    core::{Core, Function},
    ids, token,
};

const IMAGE_BUILDER_VERSION: &str = "2025.06";
/// Modal's name for the environment that has none in a request.
const DEFAULT_ENVIRONMENT: &str = "main";

pub(crate) struct CallerService {
    core: Weak<Core>,
    halt: CancellationToken,
}

impl CallerService {
    pub(crate) fn new(core: Weak<Core>, halt: CancellationToken) -> Self {
        Self { core, halt }
    }

    fn core(&self) -> Result<Arc<Core>, Status> {
        self.core
            .upgrade()
            .ok_or_else(|| Status::unavailable("the emulator has ended"))
    }
}

#[async_trait]
impl ModalClient for CallerService {
    async fn client_hello(
        &self,
        _: Request<()>,
    ) -> Result<Response<wire::ClientHelloResponse>, Status> {
        self.core()?;
        Ok(Response::new(wire::ClientHelloResponse {
            image_builder_version: IMAGE_BUILDER_VERSION.to_owned(),
            ..Default::default()
        }))
    }

    async fn auth_token_get(
        &self,
        _: Request<wire::AuthTokenGetRequest>,
    ) -> Result<Response<wire::AuthTokenGetResponse>, Status> {
        let token = token::unsigned(self.core()?.clock.now());
        Ok(Response::new(wire::AuthTokenGetResponse { token }))
    }

    async fn environment_get_or_create(
        &self,
        request: Request<wire::EnvironmentGetOrCreateRequest>,
    ) -> Result<Response<wire::EnvironmentGetOrCreateResponse>, Status> {
        self.core()?;
        let name = environment_name(&request.get_ref().deployment_name);
        let settings = wire::EnvironmentSettings {
            image_builder_version: IMAGE_BUILDER_VERSION.to_owned(),
            webhook_suffix: String::new(),
        };
        Ok(Response::new(wire::EnvironmentGetOrCreateResponse {
            environment_id: ids::environment(name),
            metadata: Some(wire::EnvironmentMetadata {
                name: name.to_owned(),
                settings: Some(settings),
            }),
        }))
    }

    async fn function_get(
        &self,
        request: Request<wire::FunctionGetRequest>,
    ) -> Result<Response<wire::FunctionGetResponse>, Status> {
        let core = self.core()?;
        let request = request.into_inner();
        let environment = environment_name(&request.environment_name);
        let function_id = ids::function(environment, &request.app_name, &request.object_tag);
        let inner = core.lock();
        let Some(function) = inner.functions.get(&function_id) else {
            let wire::FunctionGetRequest {
                app_name,
                object_tag,
                ..
            } = &request;
            return Err(Status::not_found(format!(
                "function '{object_tag}' of app '{app_name}' not found in environment '{environment}'"
            )));
        };
        Ok(Response::new(wire::FunctionGetResponse {
            function_id,
            handle_metadata: Some(handle_metadata(function)),
            server_warnings: Vec::new(),
            function: Some(function_data(function)),
        }))
    }

    async fn function_map(
        &self,
        request: Request<wire::FunctionMapRequest>,
    ) -> Result<Response<wire::FunctionMapResponse>, Status> {
        let key = idempotency_key(&request);
        let (function_call_id, pipelined_inputs) = self.core()?.map(request.into_inner(), &key)?;
        Ok(Response::new(wire::FunctionMapResponse {
            function_call_id,
            pipelined_inputs,
            retry_policy: Some(wire::FunctionRetryPolicy {
                backoff_coefficient: 1.0,
                initial_delay_ms: 1000,
                max_delay_ms: 60_000,
                retries: 0,
            }),
            function_call_jwt: String::new(),
            sync_client_retries_enabled: false,
            max_inputs_outstanding: 1000,
        }))
    }

    async fn function_put_inputs(
        &self,
        request: Request<wire::FunctionPutInputsRequest>,
    ) -> Result<Response<wire::FunctionPutInputsResponse>, Status> {
        let key = idempotency_key(&request);
        let inputs = self.core()?.put_inputs(request.into_inner(), &key)?;
        Ok(Response::new(wire::FunctionPutInputsResponse { inputs }))
    }

    async fn function_get_outputs(
        &self,
        request: Request<wire::FunctionGetOutputsRequest>,
    ) -> Result<Response<wire::FunctionGetOutputsResponse>, Status> {
        let request = request.into_inner();
        let core = self.core()?;
        let hold = Duration::try_from_secs_f32(request.timeout)
            .unwrap_or_default()
            .min(MAX_OUTPUTS_WAIT);
        let end = Instant::now() + hold;
        loop {
            let (bell, pending) = match core.outputs(&request) {
                Outputs::Ready(answer) => return Ok(Response::new(answer)),
                Outputs::Wait(bell, pending) => (bell, pending),
            };
            let mut ring = std::pin::pin!(bell.notified());
            ring.as_mut().enable();
            // Looked at once more, because the bell may have rung before it was listened to.
            if let Outputs::Ready(answer) = core.outputs(&request) {
                return Ok(Response::new(answer));
            }
            if Instant::now() >= end || self.halt.is_cancelled() {
                return Ok(Response::new(pending));
            }
            tokio::select! {
                () = ring => {}
                () = tokio::time::sleep_until(end) => {}
                () = self.halt.cancelled() => {}
            }
        }
    }

    async fn function_call_cancel(
        &self,
        request: Request<wire::FunctionCallCancelRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        self.core()?
            .cancel(&request.function_call_id, request.terminate_containers)?;
        Ok(Response::new(()))
    }

    async fn function_call_fetch(
        &self,
        request: Request<wire::FunctionCallFetchRequest>,
    ) -> Result<Response<wire::FunctionCallFetchResponse>, Status> {
        let function_call_inputs = self.core()?.fetch(&request.into_inner());
        Ok(Response::new(wire::FunctionCallFetchResponse {
            function_call_inputs,
        }))
    }
}

pub(crate) fn environment_name(name: &str) -> &str {
    if name.is_empty() {
        DEFAULT_ENVIRONMENT
    } else {
        name
    }
}

const FORMATS: [i32; 2] = [
    wire::DataFormat::Pickle as i32,
    wire::DataFormat::Cbor as i32,
];

fn handle_metadata(function: &Function) -> wire::FunctionHandleMetadata {
    let spec = &function.spec;
    wire::FunctionHandleMetadata {
        function_name: spec.name.clone(),
        function_type: FunctionType::Function.into(),
        web_url: String::new(),
        definition_id: ids::definition(&function.spec_hash),
        // No input plane: calls come through this door.
        input_plane_url: None,
        input_plane_region: None,
        max_object_size_bytes: Some(MAX_INLINE_BYTES),
        max_async_object_size_bytes: Some(MAX_ASYNC_INLINE_BYTES),
        supported_input_formats: FORMATS.to_vec(),
        supported_output_formats: FORMATS.to_vec(),
        app_id: ids::app(environment_name(&spec.environment), &spec.app_name),
    }
}

fn function_data(function: &Function) -> wire::FunctionData {
    let spec = &function.spec;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let definition = wire::Function {
        module_name: spec.name.clone(),
        function_name: spec.name.clone(),
        definition_type: DefinitionType::File.into(),
        function_type: FunctionType::Function.into(),
        concurrency_limit: count(spec.max_containers),
        timeout_secs: seconds(spec.timeout),
        task_idle_timeout_secs: seconds(spec.scaledown_window),
        app_name: spec.app_name.clone(),
        max_concurrent_inputs: count(spec.max_concurrent_inputs),
    };
    wire::FunctionData {
        module_name: definition.module_name.clone(),
        function_name: definition.function_name.clone(),
        function_type: FunctionType::Function.into(),
        timeout_secs: definition.timeout_secs,
        ranked_functions: vec![wire::function_data::RankedFunction {
            rank: 0,
            function: Some(definition),
        }],
        supported_input_formats: FORMATS.to_vec(),
        supported_output_formats: FORMATS.to_vec(),
    }
}

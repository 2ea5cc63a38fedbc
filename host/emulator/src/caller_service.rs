//! The RPCs of those who call functions.

use std::time::Duration;

use modal_api::{
    MAX_ASYNC_INLINE_BYTES, MAX_INLINE_BYTES, MAX_OUTPUTS_WAIT,
    wire::{
        self,
        function::{DefinitionType, FunctionType},
    },
};
use tokio::time::Instant;
use tonic::Status;

use crate::{ask::Ask, callers::Outputs, core::Function, definitions, ids, session};

pub(crate) fn function_get(
    ask: &Ask,
    request: wire::FunctionGetRequest,
) -> Result<wire::FunctionGetResponse, Status> {
    let core = &ask.core;
    let environment = session::environment_name(&request.environment_name);
    let function_id = ids::function(environment, &request.app_name, &request.object_tag);
    let inner = core.lock();
    let Some(function) = inner.functions.get(&function_id) else {
        let (app, tag) = (&request.app_name, &request.object_tag);
        if let Some(found) = definitions::by_name(&inner.state.rows, environment, app, tag) {
            return Ok(found);
        }
        let wire::FunctionGetRequest {
            app_name,
            object_tag,
            ..
        } = &request;
        return Err(Status::not_found(format!(
            "function '{object_tag}' of app '{app_name}' not found in environment '{environment}'"
        )));
    };
    Ok(wire::FunctionGetResponse {
        function_id,
        handle_metadata: Some(handle_metadata(function)),
        server_warnings: Vec::new(),
        function: Some(function_data(function)),
    })
}

pub(crate) fn function_map(
    ask: &Ask,
    request: wire::FunctionMapRequest,
) -> Result<wire::FunctionMapResponse, Status> {
    let (function_call_id, pipelined_inputs) = ask.core.map(request, &ask.key)?;
    Ok(wire::FunctionMapResponse {
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
    })
}

pub(crate) fn function_put_inputs(
    ask: &Ask,
    request: wire::FunctionPutInputsRequest,
) -> Result<wire::FunctionPutInputsResponse, Status> {
    let inputs = ask.core.put_inputs(request, &ask.key)?;
    Ok(wire::FunctionPutInputsResponse { inputs })
}

pub(crate) async fn function_get_outputs(
    ask: &Ask,
    request: wire::FunctionGetOutputsRequest,
) -> Result<wire::FunctionGetOutputsResponse, Status> {
    let core = &ask.core;
    let hold = Duration::try_from_secs_f32(request.timeout)
        .unwrap_or_default()
        .min(MAX_OUTPUTS_WAIT);
    let end = Instant::now() + hold;
    loop {
        let (bell, pending) = match core.outputs(&request) {
            Outputs::Ready(answer) => return Ok(answer),
            Outputs::Wait(bell, pending) => (bell, pending),
        };
        let mut ring = std::pin::pin!(bell.notified());
        ring.as_mut().enable();
        // Looked at once more, because the bell may have rung before it was listened to.
        if let Outputs::Ready(answer) = core.outputs(&request) {
            return Ok(answer);
        }
        if Instant::now() >= end || ask.halt.is_cancelled() {
            return Ok(pending);
        }
        tokio::select! {
            () = ring => {}
            () = tokio::time::sleep_until(end) => {}
            () = ask.halt.cancelled() => {}
        }
    }
}

/// A call's inputs are counted as they come: nothing waits for this word.
pub(crate) fn function_finish_inputs(
    ask: &Ask,
    request: wire::FunctionFinishInputsRequest,
) -> Result<(), Status> {
    let is_there = ask
        .core
        .lock()
        .state
        .calls
        .contains_key(&request.function_call_id);
    if is_there {
        Ok(())
    } else {
        Err(Status::not_found(format!(
            "function call {} not found",
            request.function_call_id
        )))
    }
}

pub(crate) fn function_call_cancel(
    ask: &Ask,
    request: wire::FunctionCallCancelRequest,
) -> Result<(), Status> {
    ask.core
        .cancel(&request.function_call_id, request.terminate_containers)?;
    Ok(())
}

pub(crate) fn function_call_fetch(
    ask: &Ask,
    request: wire::FunctionCallFetchRequest,
) -> Result<wire::FunctionCallFetchResponse, Status> {
    let function_call_inputs = ask.core.fetch(&request);
    Ok(wire::FunctionCallFetchResponse {
        function_call_inputs,
    })
}

const FORMATS: [i32; 2] = [
    wire::DataFormat::Pickle as i32,
    wire::DataFormat::Cbor as i32,
];

pub(crate) fn handle_metadata(function: &Function) -> wire::FunctionHandleMetadata {
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
        app_id: ids::app(session::environment_name(&spec.environment), &spec.app_name),
        ..Default::default()
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
        ..Default::default()
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
        ..Default::default()
    }
}

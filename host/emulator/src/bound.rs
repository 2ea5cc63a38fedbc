//! A published function with other limits: its variants, and what is set for it until the next deployment.

use modal_api::wire;
use prost::Message;
use tonic::Status;

use crate::{
    activation::activate,
    apps,
    ask::Ask,
    definition_checks::{check_objects, check_timeout},
    definitions::{FunctionRow, function, handle_metadata},
    ids,
    rows::Change,
    variants,
};

/// A variant: the same code with other limits, or for other parameters of its class.
pub(crate) fn bind(
    ask: &Ask,
    request: wire::FunctionBindParamsRequest,
) -> Result<wire::FunctionBindParamsResponse, Status> {
    let mut guard = ask.core.lock();
    if variants::is_own(&guard, &request.function_id) {
        drop(guard);
        return variants::bind(ask, request);
    }
    let rows = &guard.state.rows;
    let row = function(rows, &request.function_id)?;
    if !row.parent.is_empty() {
        return Err(Status::invalid_argument("a variant of a variant"));
    }
    if let Some(options) = &request.function_options {
        check_timeout(options.timeout_secs.unwrap_or(1))?;
        check_objects(rows, &options.secret_ids, &options.volume_mounts)?;
    }
    let app = apps::get(rows, &row.app_id)?;
    let encoded = request
        .function_options
        .as_ref()
        .map(Message::encode_to_vec)
        .unwrap_or_default();
    // The same request is the same variant.
    let bound_function_id =
        ids::variant(&request.function_id, &request.serialized_params, &encoded);
    let bound = FunctionRow {
        parent: request.function_id.clone(),
        serialized_params: request.serialized_params,
        options: request.function_options,
        settings: None,
        ..row.clone()
    };
    let mut change = Change::default();
    if !rows.has::<FunctionRow>(&bound_function_id) {
        change.put(&bound_function_id, &bound);
    }
    ask.commit(&mut guard, change)?;
    let is_active = guard.functions.contains_key(&request.function_id);
    if is_active && !guard.functions.contains_key(&bound_function_id) {
        activate(&ask.core, &mut guard, &row.app_id, &app, &bound_function_id)?;
    }
    let mut metadata = handle_metadata(&guard.state.rows, &row.app_id, &request.function_id)?;
    metadata.base_function_id = request.function_id;
    Ok(wire::FunctionBindParamsResponse {
        bound_function_id,
        handle_metadata: Some(metadata),
    })
}

/// Sets how many containers there may be, until the next deployment.
pub(crate) fn update_scheduling(
    ask: &Ask,
    request: wire::FunctionUpdateSchedulingParamsRequest,
) -> Result<wire::FunctionUpdateSchedulingParamsResponse, Status> {
    let mut guard = ask.core.lock();
    let mut row = function(&guard.state.rows, &request.function_id)?;
    let app = apps::get(&guard.state.rows, &row.app_id)?;
    let mut settings = row.settings.take().unwrap_or_default();
    let wanted = request.settings.unwrap_or_default();
    settings.min_containers = wanted.min_containers.or(settings.min_containers);
    settings.max_containers = wanted.max_containers.or(settings.max_containers);
    settings.scaledown_window = wanted.scaledown_window.or(settings.scaledown_window);
    row.settings = Some(settings);
    let mut change = Change::default();
    change.put(&request.function_id, &row);
    ask.commit(&mut guard, change)?;
    if guard.functions.contains_key(&request.function_id) {
        activate(
            &ask.core,
            &mut guard,
            &row.app_id,
            &app,
            &request.function_id,
        )?;
        // There may be too many of them now, or they may be idle for longer.
        let inner = &mut *guard;
        for (task_id, container) in &inner.state.containers {
            if container.function_id == request.function_id
                && let Some(live) = inner.live.get(task_id)
            {
                live.work_bell.notify_waiters();
            }
        }
        ask.core.dispatch(&mut guard, &request.function_id);
    }
    Ok(wire::FunctionUpdateSchedulingParamsResponse {})
}

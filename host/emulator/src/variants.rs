//! Variants of functions that this process brought itself: the same program with other limits and more variables.
//!
//! What a variant asks of the machine (cores, memory, a GPU, a region) is kept and has no effect, as for functions that
//! came over the API. Volumes would have to appear at paths of the whole machine, and are refused.

use std::sync::Arc;
use std::time::Duration;

use modal_api::wire;
use prost::Message;
use tonic::Status;

use crate::{
    FunctionSpec, Retries,
    ask::Ask,
    caller_service,
    core::{Core, Function, Inner},
    definition_checks::{check_objects, check_timeout},
    definitions::FunctionRow,
    emulator::spec_hash,
    ids,
    rows::{Change, Rows},
    secrets,
};

/// Whether a function came from this process, and so has no definition of Modal's.
pub(crate) fn is_own(inner: &Inner, function_id: &str) -> bool {
    inner
        .functions
        .get(function_id)
        .is_some_and(|function| function.deployed.is_none())
}

pub(crate) fn bind(
    ask: &Ask,
    request: wire::FunctionBindParamsRequest,
) -> Result<wire::FunctionBindParamsResponse, Status> {
    let mut guard = ask.core.lock();
    let inner = &mut *guard;
    let rows = &inner.state.rows;
    if rows.has::<FunctionRow>(&request.function_id) {
        return Err(Status::invalid_argument("a variant of a variant"));
    }
    let options = request.function_options.unwrap_or_default();
    check_timeout(options.timeout_secs.unwrap_or(1))?;
    check_objects(rows, &options.secret_ids, &[])?;
    if !options.volume_mounts.is_empty() {
        return Err(Status::invalid_argument(
            "functions that run on this machine's own files can't mount volumes",
        ));
    }
    let bound_function_id = ids::variant(&request.function_id, b"", &options.encode_to_vec());
    let row = FunctionRow {
        parent: request.function_id.clone(),
        options: Some(options),
        ..FunctionRow::default()
    };
    if !rows.has::<FunctionRow>(&bound_function_id) {
        let mut change = Change::default();
        change.put(&bound_function_id, &row);
        ask.commit(&mut guard, change)?;
    }
    activate(&mut guard, &bound_function_id, &row);
    let function = guard
        .functions
        .get(&bound_function_id)
        .ok_or_else(|| Status::not_found(format!("function {} not found", request.function_id)))?;
    let mut metadata = caller_service::handle_metadata(function);
    metadata.base_function_id = request.function_id;
    Ok(wire::FunctionBindParamsResponse {
        bound_function_id,
        handle_metadata: Some(metadata),
    })
}

/// A function is deployed again, in a new life of the emulator perhaps: its variants that still have work go on, the
/// others are forgotten.
pub(crate) fn follow(core: &Core, inner: &mut Inner, function_id: &str, change: &mut Change) {
    let all: Vec<(String, FunctionRow)> = inner
        .state
        .rows
        .scan::<FunctionRow>(b"")
        .filter(|(_, row)| row.parent == function_id && row.app_id.is_empty())
        .map(|(id, row)| (String::from_utf8_lossy(id).into_owned(), row))
        .collect();
    for (variant_id, row) in all {
        if has_work(inner, &variant_id) {
            activate(inner, &variant_id, &row);
            core.dispatch(inner, &variant_id);
        } else {
            inner.functions.remove(&variant_id);
            change.delete::<FunctionRow>(&variant_id);
        }
    }
}

fn has_work(inner: &Inner, function_id: &str) -> bool {
    let waits = inner
        .state
        .queues
        .get(function_id)
        .is_some_and(|queue| !queue.is_empty());
    let mut containers = inner.state.containers.values();
    waits || containers.any(|container| container.function_id == function_id)
}

/// Puts a variant to work as its function is now.
fn activate(inner: &mut Inner, variant_id: &str, row: &FunctionRow) {
    let Some(function) = inner.functions.get(&row.parent) else {
        return;
    };
    let options = row.options.clone().unwrap_or_default();
    let spec = applied(&inner.state.rows, &function.spec, &options);
    let spec_hash = spec_hash(&spec);
    if inner
        .functions
        .get(variant_id)
        .is_some_and(|known| known.spec_hash == spec_hash)
    {
        return;
    }
    let function = Function {
        spec: Arc::new(spec),
        spec_hash,
        crashes: 0,
        not_before: 0.0,
        keeps_warm: true,
        deployed: None,
        schedule: None,
    };
    inner.functions.insert(variant_id.to_owned(), function);
}

fn applied(rows: &Rows, of: &FunctionSpec, options: &wire::FunctionOptions) -> FunctionSpec {
    let mut spec = of.clone();
    for secret_id in &options.secret_ids {
        let values = secrets::values(rows, secret_id).values;
        let values = values
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()));
        spec.env.extend(values);
    }
    let seconds = |value: Option<u32>, own: Duration| {
        value.map_or(own, |seconds| Duration::from_secs(seconds.into()))
    };
    let number = |value: Option<u32>, own: usize| value.map_or(own, |number| number as usize);
    spec.timeout = seconds(options.timeout_secs, of.timeout);
    spec.scaledown_window = seconds(options.task_idle_timeout_secs, of.scaledown_window);
    spec.max_containers = number(options.concurrency_limit, of.max_containers);
    spec.min_containers = number(options.warm_pool_size, 0).min(spec.max_containers);
    spec.max_concurrent_inputs = number(options.max_concurrent_inputs, of.max_concurrent_inputs);
    if let Some(policy) = &options.retry_policy {
        spec.retries = Retries::of(policy);
    }
    spec
}

//! What is published of a function, put to work: an order to start containers, with a variant's options.

use std::{collections::HashSet, sync::Arc, time::Duration};

use modal_api::wire::{self, AppState, generic_result::GenericStatus};
use prost::Message;
use tonic::Status;

use crate::{
    FunctionSpec, Retries,
    app_parts::{app_of, functions_of},
    apps::{self, AppRow},
    core::{Core, Ending, Function, Inner},
    definitions::{DefinitionRow, FunctionRow, function, published, unknown},
    deployed::Deployed,
    schedules,
    state::Phase,
};

const DEFAULT_TIMEOUT: u32 = 300;
/// The client sends the timeout of a call as the limit of the start where none is asked for: on a busy machine a second is not enough.
const LEAST_STARTUP: Duration = Duration::from_secs(60);
const DEFAULT_SCALEDOWN: u32 = 60;
/// Modal has no limit where none is asked for; one machine has.
const DEFAULT_CONTAINERS: u32 = 10;

/// Why calls and containers end whose function a deployment has left out.
const LEFT_OUT: &str = "its function is no longer part of the app";

/// Puts what is published of a function, or of a variant, to work.
pub(crate) fn activate(
    core: &Core,
    inner: &mut Inner,
    app_id: &str,
    app: &AppRow,
    function_id: &str,
) -> Result<(), Status> {
    let rows = &inner.state.rows;
    let row = function(rows, function_id)?;
    let named = if row.parent.is_empty() {
        function_id
    } else {
        &row.parent
    };
    let (definition_id, mut definition) =
        published(rows, app, named).ok_or_else(|| unknown(function_id))?;
    let mut bytes = rows
        .get::<DefinitionRow>(&definition_id)
        .map(|row| row.function.to_vec())
        .unwrap_or_default();
    if let Some(options) = &row.options {
        apply(options, &mut definition);
        // Later fields go over earlier ones: the container's runtime sees the variant's numbers.
        overlay(&definition)
            .encode(&mut bytes)
            .map_err(|error| Status::internal(format!("definition of {function_id}: {error}")))?;
    }
    let spec = spec(core, app, &row, &definition);
    // A deployment replaces containers, also when the definition is the same; how many there may be changes nothing in them.
    let spec_hash = format!("{definition_id}@{}", app.version);
    let schedule = definition
        .schedule
        .as_ref()
        .filter(|_| app.state() == wire::AppState::Deployed && row.parent.is_empty())
        .and_then(schedules::Schedule::of)
        .map(|schedule| schedule.starting(rows, function_id, app.deployed_at, core.clock.wall()));
    let deployed = Deployed {
        function_id: function_id.to_owned(),
        app_id: app_id.to_owned(),
        definition_id,
        definition,
        bytes: bytes.into(),
        serialized_params: row.serialized_params,
    };
    let function = Function {
        spec: Arc::new(spec),
        spec_hash,
        crashes: 0,
        not_before: 0.0,
        keeps_warm: true,
        deployed: Some(Arc::new(deployed)),
        schedule,
    };
    inner.functions.insert(function_id.to_owned(), function);
    Ok(())
}

impl Core {
    /// Makes the functions of an app what its last deployment says; containers of earlier ones finish their inputs and leave.
    pub(crate) fn activate_app(&self, inner: &mut Inner, app_id: &str) {
        let Ok(row) = apps::get(&inner.state.rows, app_id) else {
            return;
        };
        if row.is_stopped() || row.state() == AppState::Initializing {
            return;
        }
        let mut active = HashSet::new();
        let mut unnamed = HashSet::new();
        for function_id in functions_of(&inner.state.rows, app_id) {
            let parent = inner
                .state
                .rows
                .get::<FunctionRow>(&function_id)
                .map(|row| row.parent)
                .unwrap_or_default();
            let named = if parent.is_empty() {
                &function_id
            } else {
                &parent
            };
            if !row.function_ids.values().any(|id| id == named) {
                unnamed.insert(function_id);
                continue;
            }
            match activate(self, inner, app_id, &row, &function_id) {
                Ok(()) => {
                    active.insert(function_id);
                }
                Err(error) => tracing::error!(%error, function_id, "function cannot be activated"),
            }
        }
        let left_out: Vec<String> = functions_of(&inner.state.rows, app_id)
            .into_iter()
            .filter(|id| !active.contains(id) && inner.functions.contains_key(id))
            .collect();
        for function_id in &left_out {
            inner.functions.remove(function_id);
        }
        self.end_waiting(inner, &unnamed);
        self.send_away(inner, LEFT_OUT, |container| {
            left_out.contains(&container.function_id) && container.running.is_empty()
        });
        for live in inner.live.values() {
            live.work_bell.notify_waiters();
        }
        for function_id in active {
            self.dispatch(inner, &function_id);
        }
        let now = self.clock.now();
        self.look_at(inner, now);
    }

    /// Ends what waits for functions that are no longer part of their app; what runs may end by itself.
    fn end_waiting(&self, inner: &mut Inner, functions: &HashSet<String>) {
        let at = self.clock.moment();
        let calls = &inner.state.calls;
        let waiting: Vec<String> = inner
            .state
            .inputs
            .iter()
            .filter(|(_, input)| matches!(input.phase, Phase::Waiting { .. }))
            .filter(|(_, input)| {
                calls
                    .get(&input.function_call_id)
                    .is_some_and(|call| functions.contains(&call.function_id))
            })
            .map(|(input_id, _)| input_id.clone())
            .collect();
        for input_id in waiting {
            let ending = Ending::new(GenericStatus::Terminated, LEFT_OUT.to_owned());
            inner.note_ended(&input_id, ending, at);
        }
    }

    /// Ends what a container has given back whose function has left its app in the meantime.
    pub(crate) fn end_given_back(&self, inner: &mut Inner, function_id: &str) {
        if !inner.functions.contains_key(function_id)
            && app_of(&inner.state.rows, function_id).is_some()
        {
            self.end_waiting(inner, &HashSet::from([function_id.to_owned()]));
        }
    }
}

/// A definition as an order to start containers.
fn spec(core: &Core, app: &AppRow, row: &FunctionRow, definition: &wire::Function) -> FunctionSpec {
    let number = |value: u32, default: u32| if value == 0 { default } else { value };
    let seconds = |value: u32, default: u32| Duration::from_secs(number(value, default).into());
    let own = definition.autoscaler_settings.unwrap_or_default();
    let set = row.settings.unwrap_or_default();
    let most = set
        .max_containers
        .or(own.max_containers)
        .unwrap_or(definition.concurrency_limit);
    let least = set
        .min_containers
        .or(own.min_containers)
        .unwrap_or(definition.warm_pool_size);
    let window = set
        .scaledown_window
        .or(own.scaledown_window)
        .unwrap_or(definition.task_idle_timeout_secs);
    let is_deployed = app.state() == wire::AppState::Deployed;
    let most = number(most, DEFAULT_CONTAINERS.max(least)) as usize;
    let mut spec = FunctionSpec::new(
        app.title(),
        &row.name,
        Vec::new(),
        core.scratch_dir(),
        core.output_dir(),
    );
    spec.environment.clone_from(&app.environment);
    spec.max_log_bytes = u64::MAX;
    spec.max_containers = most;
    // On Modal a warm pool is kept for deployed apps only.
    spec.min_containers = if is_deployed {
        (least as usize).min(most)
    } else {
        0
    };
    spec.max_concurrent_inputs =
        number(definition.max_concurrent_inputs, 1).max(definition.batch_max_size) as usize;
    spec.timeout = seconds(definition.timeout_secs, DEFAULT_TIMEOUT);
    spec.startup_timeout = seconds(
        definition.startup_timeout_secs,
        number(definition.timeout_secs, DEFAULT_TIMEOUT),
    )
    .max(LEAST_STARTUP);
    spec.scaledown_window = seconds(window, DEFAULT_SCALEDOWN);
    spec.single_use = definition.single_use_containers || definition.max_inputs == 1;
    if let Some(policy) = &definition.retry_policy {
        spec.retries = Retries::of(policy);
    }
    spec
}

fn apply(options: &wire::FunctionOptions, definition: &mut wire::Function) {
    if options.replace_secret_ids {
        definition.secret_ids.clear();
    }
    definition
        .secret_ids
        .extend(options.secret_ids.iter().cloned());
    if options.replace_volume_mounts {
        definition.volume_mounts.clear();
    }
    definition
        .volume_mounts
        .extend(options.volume_mounts.iter().cloned());
    definition
        .mount_ids
        .extend(options.mount_ids.iter().cloned());
    if options.retry_policy.is_some() {
        definition.retry_policy = options.retry_policy;
    }
    let mut settings = definition.autoscaler_settings.unwrap_or_default();
    settings.max_containers = options.concurrency_limit.or(settings.max_containers);
    settings.min_containers = options.warm_pool_size.or(settings.min_containers);
    settings.scaledown_window = options.task_idle_timeout_secs.or(settings.scaledown_window);
    definition.autoscaler_settings = Some(settings);
    let set = |field: &mut u32, value: Option<u32>| *field = value.unwrap_or(*field);
    set(&mut definition.timeout_secs, options.timeout_secs);
    set(
        &mut definition.max_concurrent_inputs,
        options.max_concurrent_inputs,
    );
    set(
        &mut definition.target_concurrent_inputs,
        options.target_concurrent_inputs,
    );
    set(&mut definition.batch_max_size, options.batch_max_size);
    definition.batch_linger_ms = options
        .batch_linger_ms
        .unwrap_or(definition.batch_linger_ms);
}

/// The numbers of a definition that its container reads.
fn overlay(definition: &wire::Function) -> wire::Function {
    wire::Function {
        timeout_secs: definition.timeout_secs,
        max_concurrent_inputs: definition.max_concurrent_inputs,
        target_concurrent_inputs: definition.target_concurrent_inputs,
        batch_max_size: definition.batch_max_size,
        batch_linger_ms: definition.batch_linger_ms,
        ..Default::default()
    }
}

//! Containers as people see them: listed, looked at, stopped.

use modal_api::wire::{
    self, FunctionCallInfo, InputCategoryInfo, InputInfo, generic_result::GenericStatus,
};
use tonic::Status;

use crate::{
    app_parts, apps,
    ask::Ask,
    callers::not_written,
    core::Inner,
    record::{Event, StopRequested},
    session,
    state::{Input, Phase},
};

/// Of each kind of inputs so many are told one by one.
const LATEST: usize = 20;

pub(crate) fn list(
    ask: &Ask,
    request: wire::TaskListRequest,
) -> Result<wire::TaskListResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    let environment = if request.app_id.is_empty() {
        Some(session::environment(&guard, &request.environment_name)?)
    } else {
        apps::get(rows, &request.app_id)?;
        None
    };
    let mut tasks: Vec<wire::TaskStats> = guard
        .state
        .containers
        .iter()
        .filter_map(|(task_id, container)| {
            let app_id = app_parts::app_of(rows, &container.function_id)?;
            let app = apps::get(rows, &app_id).ok()?;
            let is_meant = match &environment {
                Some(environment) => app.environment == *environment,
                None => app_id == request.app_id,
            };
            is_meant.then(|| wire::TaskStats {
                task_id: task_id.clone(),
                app_id,
                app_description: app.title().to_owned(),
                started_at: container.created_at,
                enqueued_at: container.created_at,
            })
        })
        .collect();
    tasks.sort_by(|one, other| other.started_at.total_cmp(&one.started_at));
    Ok(wire::TaskListResponse { tasks })
}

pub(crate) fn info(
    ask: &Ask,
    request: wire::TaskGetInfoRequest,
) -> Result<wire::TaskGetInfoResponse, Status> {
    let guard = ask.core.lock();
    let container = guard
        .state
        .containers
        .get(&request.task_id)
        .ok_or_else(|| unknown(&request.task_id))?;
    Ok(wire::TaskGetInfoResponse {
        app_id: app_parts::app_of(&guard.state.rows, &container.function_id).unwrap_or_default(),
        info: Some(wire::TaskInfo {
            id: request.task_id,
            started_at: container.created_at,
            enqueued_at: container.created_at,
            finished_at: 0.0,
            result: None,
        }),
    })
}

/// What a container works on starts again elsewhere; one that is stopped gracefully brings it to its end and takes nothing more.
pub(crate) fn stop(
    ask: &Ask,
    request: wire::ContainerStopRequest,
) -> Result<wire::ContainerStopResponse, Status> {
    let mut guard = ask.core.lock();
    if !guard.state.containers.contains_key(&request.task_id) {
        return Err(unknown(&request.task_id));
    }
    if request.graceful {
        let task_id = request.task_id.clone();
        let event = Event::StopRequested(StopRequested { task_id });
        guard.commit(event).map_err(not_written)?;
        if let Some(live) = guard.live.get_mut(&request.task_id) {
            live.is_spent = true;
            live.work_bell.notify_waiters();
        }
        return Ok(wire::ContainerStopResponse {});
    }
    ask.core.requeue_neighbours(&mut guard, &request.task_id);
    ask.core
        .doom(&mut guard, &request.task_id, "it was stopped".to_owned());
    Ok(wire::ContainerStopResponse {})
}

pub(crate) fn call_from_id(
    ask: &Ask,
    request: wire::FunctionCallFromIdRequest,
) -> Result<wire::FunctionCallFromIdResponse, Status> {
    let guard = ask.core.lock();
    let call = guard
        .state
        .calls
        .get(&request.function_call_id)
        .ok_or_else(|| no_call(&request.function_call_id))?;
    Ok(wire::FunctionCallFromIdResponse {
        num_inputs: i32::try_from(call.inputs.len()).unwrap_or(i32::MAX),
        metadata: Some(wire::FunctionCallHandleMetadata {
            app_id: app_parts::app_of(&guard.state.rows, &call.function_id).unwrap_or_default(),
            function_id: call.function_id.clone(),
        }),
        function_call_id: request.function_call_id,
    })
}

/// How far a call has come.
pub(crate) fn call_info(
    ask: &Ask,
    request: wire::FunctionCallGetInfoRequest,
) -> Result<wire::FunctionCallGetInfoResponse, Status> {
    let guard = ask.core.lock();
    let call = guard
        .state
        .calls
        .get(&request.function_call_id)
        .ok_or_else(|| no_call(&request.function_call_id))?;
    let kinds = |wanted: fn(&Phase) -> bool| category(&guard, &call.inputs, wanted);
    Ok(wire::FunctionCallGetInfoResponse {
        info: Some(FunctionCallInfo {
            created_at: call.created_at,
            scheduled_at: call.created_at,
            pending_inputs: kinds(|phase| status(phase).is_none()),
            succeeded_inputs: kinds(|phase| status(phase) == Some(GenericStatus::Success)),
            timeout_inputs: kinds(|phase| status(phase) == Some(GenericStatus::Timeout)),
            cancelled_inputs: kinds(|phase| status(phase) == Some(GenericStatus::Terminated)),
            failed_inputs: kinds(|phase| {
                !matches!(
                    status(phase),
                    None | Some(
                        GenericStatus::Success | GenericStatus::Timeout | GenericStatus::Terminated
                    )
                )
            }),
            total_inputs: i32::try_from(call.inputs.len()).unwrap_or(i32::MAX),
            function_call_id: request.function_call_id,
        }),
    })
}

pub(crate) fn stats(
    ask: &Ask,
    request: wire::FunctionGetCurrentStatsRequest,
) -> Result<wire::FunctionStats, Status> {
    let guard = ask.core.lock();
    if !guard.functions.contains_key(&request.function_id) {
        return Err(Status::not_found(format!(
            "function {} not found",
            request.function_id
        )));
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let containers = guard.state.containers.values();
    let own: Vec<_> = containers
        .filter(|container| container.function_id == request.function_id)
        .collect();
    let running: usize = own.iter().map(|container| container.running.len()).sum();
    let room: usize = own.iter().map(|container| container.capacity).sum();
    let waiting = guard.state.queues.get(&request.function_id);
    Ok(wire::FunctionStats {
        backlog: count(waiting.map_or(0, std::collections::VecDeque::len)),
        num_total_tasks: count(own.len()),
        num_running_inputs: count(running),
        input_headroom: count(room.saturating_sub(running)),
    })
}

fn category(
    inner: &Inner,
    input_ids: &[String],
    wanted: fn(&Phase) -> bool,
) -> Option<InputCategoryInfo> {
    let found: Vec<_> = input_ids
        .iter()
        .filter_map(|id| Some((id, inner.state.inputs.get(id)?)))
        .filter(|(_, input)| wanted(&input.phase))
        .collect();
    Some(InputCategoryInfo {
        total: i32::try_from(found.len()).unwrap_or(i32::MAX),
        latest: found
            .iter()
            .rev()
            .take(LATEST)
            .map(|(id, input)| input_info(id, input))
            .collect(),
    })
}

fn input_info(input_id: &str, input: &Input) -> InputInfo {
    let mut info = InputInfo {
        input_id: input_id.to_owned(),
        idx: input.idx,
        ..Default::default()
    };
    match &input.phase {
        Phase::Waiting { .. } => {}
        Phase::Running {
            task_id,
            started_at,
            ..
        } => {
            info.task_id.clone_from(task_id);
            info.started_at = *started_at;
        }
        Phase::Ended(output) => {
            info.task_id.clone_from(&output.task_id);
            info.started_at = output.input_started_at;
            info.finished_at = output.output_created_at;
        }
    }
    info
}

/// None: it has not ended.
fn status(phase: &Phase) -> Option<GenericStatus> {
    match phase {
        Phase::Waiting { .. } | Phase::Running { .. } => None,
        Phase::Ended(output) => Some(
            output
                .result
                .as_ref()
                .map(wire::GenericResult::status)
                .unwrap_or_default(),
        ),
    }
}

fn unknown(task_id: &str) -> Status {
    Status::not_found(format!("container {task_id} not found"))
}

fn no_call(function_call_id: &str) -> Status {
    Status::not_found(format!("function call {function_call_id} not found"))
}

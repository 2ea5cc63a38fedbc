//! The caller's side of the state machine: calls are made, asked after, cancelled.

use modal_api::{
    MAX_ASYNC_INLINE_BYTES, MAX_INLINE_BYTES,
    wire::{
        FunctionCallInvocationType, FunctionGetOutputsRequest, FunctionGetOutputsResponse,
        FunctionMapRequest, FunctionPutInputsItem, FunctionPutInputsRequest,
        FunctionPutInputsResponseItem, function_input::ArgsOneof, generic_result::GenericStatus,
    },
};
use std::sync::Arc;
use tokio::sync::Notify;
use tonic::Status;

use crate::{
    blobs::BlobRow,
    core::{Core, Ending, Inner},
    ids,
    record::{CallCreated, CancelRequested, Event, InputsAdded, NewInput},
    state::{Call, Phase},
};

/// Beyond this many waiting inputs a function takes no more. Modal's own limit is a million; this one fits into memory.
const MAX_WAITING_INPUTS: usize = 50_000;

/// A call's outputs, or the bell to wait for.
pub(crate) enum Outputs {
    Ready(FunctionGetOutputsResponse),
    Wait(Arc<Notify>, FunctionGetOutputsResponse),
}

impl Core {
    pub(crate) fn map(
        &self,
        request: FunctionMapRequest,
        key: &str,
    ) -> Result<(String, Vec<FunctionPutInputsResponseItem>), Status> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some((function_call_id, call)) = known_call(inner, key) {
            if call.function_id != request.function_id {
                return Err(Status::invalid_argument(
                    "the idempotency key belongs to a call of another function",
                ));
            }
            return Ok((function_call_id.to_owned(), answers(inner, call, key)));
        }
        check_deployed(inner, &request.function_id)?;
        check_inputs(
            inner,
            &request.function_id,
            request.function_call_invocation_type,
            &request.pipelined_inputs,
        )?;
        let function_call_id = ids::function_call();
        let inputs = new_inputs(request.pipelined_inputs);
        let items = inputs.iter().map(response_item).collect();
        let event = CallCreated {
            function_call_id: function_call_id.clone(),
            function_id: request.function_id.clone(),
            invocation_type: request.function_call_invocation_type,
            created_at: self.clock.wall(),
            idempotency_key: key.to_owned(),
            inputs,
        };
        inner
            .commit(Event::CallCreated(event))
            .map_err(not_written)?;
        self.dispatch(inner, &request.function_id);
        Ok((function_call_id, items))
    }

    pub(crate) fn put_inputs(
        &self,
        request: FunctionPutInputsRequest,
        key: &str,
    ) -> Result<Vec<FunctionPutInputsResponseItem>, Status> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some((function_call_id, call)) = known_call(inner, key) {
            if function_call_id != request.function_call_id {
                return Err(Status::invalid_argument(
                    "the idempotency key belongs to another call",
                ));
            }
            return Ok(answers(inner, call, key));
        }
        let call = inner
            .state
            .calls
            .get(&request.function_call_id)
            .ok_or_else(|| no_call(&request.function_call_id))?;
        let function_id = call.function_id.clone();
        check_inputs(inner, &function_id, call.invocation_type, &request.inputs)?;
        let inputs = new_inputs(request.inputs);
        let items = inputs.iter().map(response_item).collect();
        let event = InputsAdded {
            function_call_id: request.function_call_id,
            idempotency_key: key.to_owned(),
            inputs,
            created_at: self.clock.wall(),
        };
        inner
            .commit(Event::InputsAdded(event))
            .map_err(not_written)?;
        self.dispatch(inner, &function_id);
        Ok(items)
    }

    /// What a call has brought since `last_entry_id`. A call that is not known answers like one whose outputs have expired.
    pub(crate) fn outputs(&self, request: &FunctionGetOutputsRequest) -> Outputs {
        let inner = self.lock();
        let mut answer = FunctionGetOutputsResponse {
            last_entry_id: request.last_entry_id.clone(),
            ..Default::default()
        };
        let Some(call) = inner.state.calls.get(&request.function_call_id) else {
            return Outputs::Ready(answer);
        };
        let from = request
            .last_entry_id
            .split('-')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let most = usize::try_from(request.max_values)
            .ok()
            .filter(|most| *most > 0)
            .unwrap_or(usize::MAX);
        for (place, input_id) in call.ended.iter().enumerate().skip(from) {
            if answer.outputs.len() == most {
                break;
            }
            let Some(Phase::Ended(output)) =
                inner.state.inputs.get(input_id).map(|input| &input.phase)
            else {
                continue;
            };
            if request.start_idx.is_none_or(|start| output.idx >= start)
                && request.end_idx.is_none_or(|end| output.idx <= end)
            {
                answer.idxs.push(output.idx);
                answer.outputs.push(output.clone());
                answer.last_entry_id = format!("{}-0", place + 1);
            }
        }
        // A call that waits for its first input is not over.
        let unfinished = if call.inputs.is_empty() {
            1
        } else {
            call.unfinished()
        };
        answer.num_unfinished_inputs = i32::try_from(unfinished).unwrap_or(i32::MAX);
        if answer.outputs.is_empty() && unfinished > 0 {
            Outputs::Wait(call.bell.clone(), answer)
        } else {
            Outputs::Ready(answer)
        }
    }

    /// What waits ends at once; who works on the rest is told, or killed.
    pub(crate) fn cancel(
        &self,
        function_call_id: &str,
        terminates_containers: bool,
    ) -> Result<(), Status> {
        let at = self.clock.moment();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let call = inner
            .state
            .calls
            .get(function_call_id)
            .ok_or_else(|| no_call(function_call_id))?;
        let function_id = call.function_id.clone();
        let input_ids = call.inputs.clone();
        for input_id in input_ids {
            let task_id = match inner.state.inputs.get(&input_id).map(|input| &input.phase) {
                None | Some(Phase::Ended(_)) => continue,
                Some(Phase::Waiting { .. }) => None,
                Some(Phase::Running { task_id, .. }) => Some(task_id.clone()),
            };
            match task_id {
                Some(task_id) if !terminates_containers => {
                    inner
                        .commit(Event::CancelRequested(CancelRequested {
                            input_id: input_id.clone(),
                        }))
                        .map_err(not_written)?;
                    if let Some(live) = inner.live.get_mut(&task_id) {
                        live.cancellations.push((input_id, None));
                        live.cancel_bell.notify_waiters();
                    }
                }
                task_id => {
                    let ending = Ending::new(
                        GenericStatus::Terminated,
                        "the call was cancelled".to_owned(),
                    );
                    inner
                        .end_input(&input_id, ending, at)
                        .map_err(not_written)?;
                    if let Some(task_id) = task_id {
                        // Neighbours are innocent: as on Modal they start again elsewhere.
                        self.requeue_neighbours(inner, &task_id);
                        self.doom(
                            inner,
                            &task_id,
                            format!("call {function_call_id} was cancelled with its container"),
                        );
                    }
                }
            }
        }
        self.dispatch(inner, &function_id);
        Ok(())
    }
}

pub(crate) fn not_written(error: std::io::Error) -> Status {
    tracing::error!(%error, "journal could not be written");
    Status::unavailable(format!("the journal could not be written: {error}"))
}

fn no_call(function_call_id: &str) -> Status {
    Status::not_found(format!("function call {function_call_id} not found"))
}

fn check_deployed(inner: &Inner, function_id: &str) -> Result<(), Status> {
    if inner.stopping {
        return Err(Status::unavailable("the emulator is stopping"));
    }
    match inner.functions.contains_key(function_id) {
        true => Ok(()),
        false => Err(Status::not_found(format!(
            "function {function_id} not found"
        ))),
    }
}

fn check_inputs(
    inner: &Inner,
    function_id: &str,
    invocation_type: i32,
    items: &[FunctionPutInputsItem],
) -> Result<(), Status> {
    let is_async = [
        FunctionCallInvocationType::Async,
        FunctionCallInvocationType::AsyncLegacy,
    ]
    .iter()
    .any(|kind| *kind as i32 == invocation_type);
    let limit = if is_async {
        MAX_ASYNC_INLINE_BYTES
    } else {
        MAX_INLINE_BYTES
    };
    for item in items {
        match item
            .input
            .as_ref()
            .and_then(|input| input.args_oneof.as_ref())
        {
            Some(ArgsOneof::Args(args)) if args.len() as u64 > limit => {
                // Invalid, not exhausted: clients wait and repeat what is exhausted.
                let size = args.len();
                return Err(Status::invalid_argument(format!(
                    "the arguments take {size} bytes inline, {limit} are allowed: use a blob"
                )));
            }
            Some(ArgsOneof::Args(_)) => {}
            Some(ArgsOneof::ArgsBlobId(id)) => {
                if !inner.state.rows.has::<BlobRow>(id) {
                    return Err(Status::not_found(format!("blob {id} not found")));
                }
            }
            None => return Err(Status::invalid_argument("an input without arguments")),
        }
    }
    let waiting = inner
        .state
        .queues
        .get(function_id)
        .map_or(0, std::collections::VecDeque::len);
    if waiting + items.len() > MAX_WAITING_INPUTS {
        return Err(Status::resource_exhausted(format!(
            "{waiting} inputs wait for function {function_id}: no more are taken"
        )));
    }
    Ok(())
}

fn known_call<'a>(inner: &'a Inner, key: &str) -> Option<(&'a str, &'a Call)> {
    let id = inner.state.keys.get(key).filter(|_| !key.is_empty())?;
    Some((id, inner.state.calls.get(id)?))
}

fn answers(inner: &Inner, call: &Call, key: &str) -> Vec<FunctionPutInputsResponseItem> {
    let ids = call.batches.get(key).into_iter().flatten();
    ids.map(|input_id| FunctionPutInputsResponseItem {
        idx: inner
            .state
            .inputs
            .get(input_id)
            .map_or(0, |input| input.idx),
        input_id: input_id.clone(),
        input_jwt: String::new(),
    })
    .collect()
}

fn new_inputs(items: Vec<FunctionPutInputsItem>) -> Vec<NewInput> {
    items
        .into_iter()
        .map(|item| NewInput {
            input_id: ids::input(),
            idx: item.idx,
            input: item.input,
        })
        .collect()
}

fn response_item(input: &NewInput) -> FunctionPutInputsResponseItem {
    FunctionPutInputsResponseItem {
        idx: input.idx,
        input_id: input.input_id.clone(),
        input_jwt: String::new(),
    }
}

//! The container's side of the state machine: outputs come in, cancellations go out.

use std::sync::Arc;

use modal_api::wire::{
    CancelInputEvent, FunctionGetInputsItem, FunctionPutOutputsItem, GenericResult,
};
use tokio::sync::Notify;

use crate::{
    core::{Core, Ending, Inner},
    state::Phase,
};

/// The bells of a container; none if the container is not known.
pub(crate) struct Bells {
    pub(crate) work: Arc<Notify>,
    pub(crate) cancel: Arc<Notify>,
}

impl Core {
    pub(crate) fn bells(&self, task_id: &str) -> Option<Bells> {
        let inner = self.lock();
        let live = inner.live.get(task_id)?;
        Some(Bells {
            work: live.work_bell.clone(),
            cancel: live.cancel_bell.clone(),
        })
    }

    /// Counts the requests for inputs that wait, so that work goes to a container that is at the door.
    pub(crate) fn poll_begins(&self, task_id: &str) {
        if let Some(live) = self.lock().live.get_mut(task_id) {
            live.polls += 1;
        }
    }

    pub(crate) fn poll_ends(&self, task_id: &str) {
        if let Some(live) = self.lock().live.get_mut(task_id) {
            live.polls = live.polls.saturating_sub(1);
        }
    }

    /// The messages for inputs that were just given to a container.
    pub(crate) fn input_items(&self, ids: &[String]) -> Vec<FunctionGetInputsItem> {
        let inner = self.lock();
        ids.iter()
            .filter_map(|input_id| input_item(&inner, input_id))
            .collect()
    }

    /// Cancellations that the container has not heard of. `key` is the heartbeat's: a repeated one is told again.
    pub(crate) fn cancellations(&self, task_id: &str, key: &str) -> Option<CancelInputEvent> {
        let mut inner = self.lock();
        let live = inner.live.get_mut(task_id)?;
        let mut input_ids = Vec::new();
        for (input_id, told) in &mut live.cancellations {
            if told
                .as_ref()
                .is_none_or(|told| told == key && !key.is_empty())
            {
                *told = Some(key.to_owned());
                input_ids.push(input_id.clone());
            }
        }
        (!input_ids.is_empty()).then(|| CancelInputEvent {
            input_ids,
            ..Default::default()
        })
    }

    /// Takes outputs in. What is over already, or is another container's by now, stays as it is.
    pub(crate) fn put_outputs(
        &self,
        task_id: &str,
        items: Vec<FunctionPutOutputsItem>,
    ) -> std::io::Result<()> {
        let at = self.clock.moment();
        let mut guard = self.lock();
        let inner = &mut *guard;
        for item in items {
            let data_format = item.data_format();
            let input_id = item.input_id;
            if let Some(live) = inner.live.get_mut(task_id) {
                live.cancellations.retain(|(id, _)| *id != input_id);
                live.overdue.retain(|id| *id != input_id);
            }
            let is_here = match inner.state.inputs.get(&input_id) {
                Some(input) => match &input.phase {
                    Phase::Running { task_id: at, .. } => {
                        at == task_id && input.retry_count == item.retry_count
                    }
                    Phase::Waiting { .. } | Phase::Ended(_) => false,
                },
                None => false,
            };
            if !is_here {
                tracing::debug!(
                    input_id,
                    task_id,
                    "output for an input that is not running there"
                );
                continue;
            }
            let ending = Ending {
                result: item.result.unwrap_or_default(),
                data_format,
                started_at: item.input_started_at,
            };
            inner.end_input(&input_id, ending, at)?;
        }
        let Some(function_id) = inner
            .state
            .containers
            .get(task_id)
            .map(|container| container.function_id.clone())
        else {
            return Ok(());
        };
        if let Some(live) = inner.live.get(task_id) {
            // There is room now, or, when stopping, a reason to leave.
            live.work_bell.notify_waiters();
        }
        self.dispatch(inner, &function_id);
        Ok(())
    }

    pub(crate) fn task_result(&self, task_id: &str, result: GenericResult) {
        if let Some(live) = self.lock().live.get_mut(task_id) {
            live.task_result = Some(result);
        }
    }
}

fn input_item(inner: &Inner, input_id: &str) -> Option<FunctionGetInputsItem> {
    let input = inner.state.inputs.get(input_id)?;
    let Phase::Running { input: content, .. } = &input.phase else {
        return None;
    };
    let call = inner.state.calls.get(&input.function_call_id)?;
    Some(FunctionGetInputsItem {
        input_id: input_id.to_owned(),
        input: Some(content.clone()),
        kill_switch: false,
        function_call_id: input.function_call_id.clone(),
        function_call_invocation_type: call.invocation_type,
        retry_count: input.retry_count,
        function_map_idx: Some(input.idx),
    })
}

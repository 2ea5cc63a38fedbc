//! What the emulator knows: functions' queues, calls, inputs, containers. It changes only by [`State::apply`], with the events that the
//! journal holds, and can be written down as events again. No I/O, no clock, no waiting here.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use modal_api::wire::{FunctionGetOutputsItem, FunctionInput};
use tokio::sync::Notify;

use crate::{
    record::{
        CallCreated, ContainerStarting, Event, InputEnded, InputRetried, InputStarted, NewInput,
    },
    rows::Rows,
};

/// Finished calls beyond this number are forgotten, oldest first.
pub(crate) const MAX_FINISHED_CALLS: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Waiting inputs of each function, deployed or not.
    pub(crate) queues: HashMap<String, VecDeque<String>>,
    pub(crate) calls: HashMap<String, Call>,
    pub(crate) inputs: HashMap<String, Input>,
    pub(crate) containers: HashMap<String, Container>,
    /// Idempotency key to call.
    pub(crate) keys: HashMap<String, String>,
    pub(crate) rows: Rows,
    /// Inputs that wait for the moment of their next try, not in a queue yet.
    delayed: Vec<(f64, String)>,
    /// In the order of their end.
    finished: VecDeque<String>,
    calls_made: u64,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function_id: String,
    pub(crate) invocation_type: i32,
    pub(crate) created_at: f64,
    pub(crate) inputs: Vec<String>,
    /// Input ids in the order in which they ended: the place is the entry id that `FunctionGetOutputs` counts by.
    pub(crate) ended: Vec<String>,
    /// Rung at each output.
    pub(crate) bell: Arc<Notify>,
    /// Which inputs came with which key, to answer a repeated request.
    pub(crate) batches: HashMap<String, Vec<String>>,
    pub(crate) number: u64,
}

impl Call {
    pub(crate) fn unfinished(&self) -> usize {
        self.inputs.len() - self.ended.len()
    }
}

#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) function_call_id: String,
    pub(crate) idx: i32,
    pub(crate) enqueued_at: f64,
    /// How many tries came before this one.
    pub(crate) retry_count: u32,
    pub(crate) phase: Phase,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Waiting {
        input: FunctionInput,
    },
    Running {
        input: FunctionInput,
        task_id: String,
        started_at: f64,
        deadline: f64,
        /// How long it may run.
        limit: f64,
        cancelled: bool,
    },
    Ended(FunctionGetOutputsItem),
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) function_id: String,
    pub(crate) spec_hash: String,
    pub(crate) created_at: f64,
    pub(crate) capacity: usize,
    pub(crate) log_path: PathBuf,
    pub(crate) max_log_bytes: u64,
    pub(crate) process: Option<ProcessKey>,
    /// It was asked to end after what it works on.
    pub(crate) stop_requested: bool,
    pub(crate) running: BTreeSet<String>,
}

/// A process of this machine, safe against reuse of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessKey {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

impl State {
    /// Takes one event in. Events about things that are not known (any more) change nothing.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::CallCreated(event) => self.create_call(event),
            Event::InputsAdded(event) => {
                self.add_inputs(
                    &event.function_call_id,
                    event.idempotency_key,
                    event.inputs,
                    event.created_at,
                );
            }
            Event::InputStarted(event) => self.start_input(event),
            Event::InputRequeued(event) => self.requeue_input(&event.input_id),
            Event::InputRetried(event) => self.retry_input(event),
            Event::CancelRequested(event) => self.request_cancel(&event.input_id),
            Event::InputEnded(event) => self.end_input(event),
            Event::ContainerStarting(event) => self.create_container(event),
            Event::ContainerStarted(event) => {
                if let Some(container) = self.containers.get_mut(&event.task_id) {
                    container.process = Some(ProcessKey {
                        pid: event.pid,
                        start_time: event.start_time,
                    });
                }
            }
            Event::StopRequested(event) => {
                if let Some(container) = self.containers.get_mut(&event.task_id) {
                    container.stop_requested = true;
                }
            }
            Event::ContainerEnded(event) => {
                self.containers.remove(&event.task_id);
            }
            Event::KeyKept(event) => self.keep_key(
                &event.function_call_id,
                event.idempotency_key,
                event.input_ids,
            ),
            Event::RowsChanged(event) => self.rows.apply(event),
        }
    }

    /// Forgets finished calls that ended before this moment.
    pub(crate) fn forget_ended_before(&mut self, moment: f64) {
        while let Some(id) = self.finished.front() {
            let last = self
                .calls
                .get(id)
                .and_then(|call| call.ended.last())
                .and_then(|id| self.inputs.get(id));
            match last.map(|input| &input.phase) {
                Some(Phase::Ended(output)) if output.output_created_at >= moment => break,
                _ => self.forget_oldest_finished(),
            }
        }
    }

    fn create_call(&mut self, event: CallCreated) {
        self.calls_made += 1;
        let call = Call {
            function_id: event.function_id,
            invocation_type: event.invocation_type,
            created_at: event.created_at,
            inputs: Vec::new(),
            ended: Vec::new(),
            bell: Arc::default(),
            batches: HashMap::new(),
            number: self.calls_made,
        };
        self.calls.insert(event.function_call_id.clone(), call);
        self.add_inputs(
            &event.function_call_id,
            event.idempotency_key,
            event.inputs,
            event.created_at,
        );
    }

    fn add_inputs(
        &mut self,
        function_call_id: &str,
        key: String,
        inputs: Vec<NewInput>,
        created_at: f64,
    ) {
        if !key.is_empty() {
            self.keep_key(
                function_call_id,
                key,
                inputs.iter().map(|input| input.input_id.clone()).collect(),
            );
        }
        let Some(call) = self.calls.get_mut(function_call_id) else {
            return;
        };
        let queue = self.queues.entry(call.function_id.clone()).or_default();
        for new in inputs {
            queue.push_back(new.input_id.clone());
            call.inputs.push(new.input_id.clone());
            let input = Input {
                function_call_id: function_call_id.to_owned(),
                idx: new.idx,
                enqueued_at: created_at,
                retry_count: 0,
                phase: Phase::Waiting {
                    input: new.input.unwrap_or_default(),
                },
            };
            self.inputs.insert(new.input_id, input);
        }
    }

    fn keep_key(&mut self, function_call_id: &str, key: String, input_ids: Vec<String>) {
        let Some(call) = self.calls.get_mut(function_call_id) else {
            return;
        };
        self.keys.insert(key.clone(), function_call_id.to_owned());
        call.batches.insert(key, input_ids);
    }

    fn start_input(&mut self, event: InputStarted) {
        let Some(input) = self.inputs.get_mut(&event.input_id) else {
            return;
        };
        let Phase::Waiting { input: content } = &mut input.phase else {
            return;
        };
        input.phase = Phase::Running {
            input: std::mem::take(content),
            task_id: event.task_id.clone(),
            started_at: event.started_at,
            deadline: event.deadline,
            // Older journals count both by one clock.
            limit: event.limit.unwrap_or(event.deadline - event.started_at),
            cancelled: false,
        };
        if let Some(container) = self.containers.get_mut(&event.task_id) {
            container.running.insert(event.input_id.clone());
        }
        self.leave_queue(&event.input_id);
        // In a journal that is read again nobody has released it.
        self.delayed.retain(|(_, id)| *id != event.input_id);
    }

    fn requeue_input(&mut self, input_id: &str) {
        let Some(input) = self.inputs.get_mut(input_id) else {
            return;
        };
        let Phase::Running {
            input: content,
            task_id,
            ..
        } = &mut input.phase
        else {
            return;
        };
        if let Some(container) = self.containers.get_mut(task_id) {
            container.running.remove(input_id);
        }
        input.phase = Phase::Waiting {
            input: std::mem::take(content),
        };
        if let Some(call) = self.calls.get(&input.function_call_id) {
            // It has waited before: to the front.
            self.queues
                .entry(call.function_id.clone())
                .or_default()
                .push_front(input_id.to_owned());
        }
    }

    fn retry_input(&mut self, event: InputRetried) {
        let Some(input) = self.inputs.get_mut(&event.input_id) else {
            return;
        };
        match &mut input.phase {
            Phase::Ended(_) => return,
            Phase::Waiting { .. } => {}
            Phase::Running {
                input: content,
                task_id,
                ..
            } => {
                if let Some(container) = self.containers.get_mut(task_id) {
                    container.running.remove(&event.input_id);
                }
                input.phase = Phase::Waiting {
                    input: std::mem::take(content),
                };
            }
        }
        input.retry_count = event.retry_count;
        self.leave_queue(&event.input_id);
        self.delayed.retain(|(_, id)| *id != event.input_id);
        self.delayed.push((event.not_before, event.input_id));
    }

    /// Puts inputs whose moment has come into their queues; answers the next such moment.
    pub(crate) fn release_delayed(&mut self, now: f64) -> Option<f64> {
        if self.delayed.is_empty() {
            return None;
        }
        let (ready, rest) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition::<Vec<_>, _>(|(moment, _)| *moment <= now);
        self.delayed = rest;
        for (_, input_id) in ready {
            let Some(input) = self.inputs.get(&input_id) else {
                continue;
            };
            if let (Phase::Waiting { .. }, Some(call)) =
                (&input.phase, self.calls.get(&input.function_call_id))
            {
                self.queues
                    .entry(call.function_id.clone())
                    .or_default()
                    .push_back(input_id);
            }
        }
        self.delayed
            .iter()
            .map(|(moment, _)| *moment)
            .reduce(f64::min)
    }

    fn request_cancel(&mut self, input_id: &str) {
        if let Some(Input {
            phase: Phase::Running { cancelled, .. },
            ..
        }) = self.inputs.get_mut(input_id)
        {
            *cancelled = true;
        }
    }

    fn end_input(&mut self, event: InputEnded) {
        let Some(input) = self.inputs.get_mut(&event.input_id) else {
            return;
        };
        match &input.phase {
            Phase::Ended(_) => return,
            Phase::Waiting { .. } => {}
            Phase::Running { task_id, .. } => {
                if let Some(container) = self.containers.get_mut(task_id) {
                    container.running.remove(&event.input_id);
                }
            }
        }
        input.phase = Phase::Ended(FunctionGetOutputsItem {
            result: event.result,
            idx: input.idx,
            input_id: event.input_id.clone(),
            data_format: event.data_format,
            task_id: event.task_id,
            input_started_at: event.started_at,
            output_created_at: event.ended_at,
            retry_count: input.retry_count,
        });
        let function_call_id = input.function_call_id.clone();
        self.leave_queue(&event.input_id);
        let Some(call) = self.calls.get_mut(&function_call_id) else {
            return;
        };
        call.ended.push(event.input_id);
        call.bell.notify_waiters();
        if call.unfinished() == 0 {
            self.finished.push_back(function_call_id);
            if self.finished.len() > MAX_FINISHED_CALLS {
                self.forget_oldest_finished();
            }
        }
    }

    fn leave_queue(&mut self, input_id: &str) {
        let Some(call) = self
            .inputs
            .get(input_id)
            .and_then(|input| self.calls.get(&input.function_call_id))
        else {
            return;
        };
        let Some(queue) = self.queues.get_mut(&call.function_id) else {
            return;
        };
        // Nearly always the first one.
        if let Some(place) = queue.iter().position(|id| id == input_id) {
            queue.remove(place);
        }
    }

    fn create_container(&mut self, event: ContainerStarting) {
        use std::os::unix::ffi::OsStringExt;
        let container = Container {
            function_id: event.function_id,
            spec_hash: event.spec_hash,
            created_at: event.created_at,
            capacity: usize::try_from(event.max_concurrent_inputs).unwrap_or(usize::MAX),
            log_path: std::ffi::OsString::from_vec(event.log_path).into(),
            max_log_bytes: event.max_log_bytes,
            process: None,
            stop_requested: false,
            running: BTreeSet::new(),
        };
        self.containers.insert(event.task_id, container);
    }

    fn forget_oldest_finished(&mut self) {
        let Some(id) = self.finished.pop_front() else {
            return;
        };
        // A map call that got more inputs after it had finished is in the list once more, further back.
        if self.calls.get(&id).is_none_or(|call| call.unfinished() > 0) {
            return;
        }
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        for input in &call.inputs {
            self.inputs.remove(input);
        }
        for key in call.batches.keys() {
            self.keys.remove(key);
        }
    }
}

//! The state as the events that make it: what a rewritten journal holds.

use std::os::unix::ffi::OsStrExt;

use crate::{
    record::{
        CallCreated, CancelRequested, ContainerStarted, ContainerStarting, Event, InputEnded,
        InputRetried, InputStarted, KeyKept, NewInput, StopRequested,
    },
    state::{Call, Container, Input, Phase, ProcessKey, State},
};

impl State {
    /// Containers come first, because inputs refer to them; calls in the order in which they were made.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events: Vec<_> = self.rows.events().collect();
        for (task_id, container) in &self.containers {
            container_events(task_id, container, &mut events);
        }
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_unstable_by_key(|(_, call)| call.number);
        for (id, call) in calls {
            self.call_events(id, call, &mut events);
        }
        events
    }

    fn call_events(&self, id: &str, call: &Call, events: &mut Vec<Event>) {
        let inputs = || {
            call.inputs
                .iter()
                .filter_map(|id| self.inputs.get(id).map(|input| (id, input)))
        };
        events.push(Event::CallCreated(CallCreated {
            function_call_id: id.to_owned(),
            function_id: call.function_id.clone(),
            invocation_type: call.invocation_type,
            created_at: call.created_at,
            idempotency_key: String::new(),
            inputs: inputs().map(|(id, input)| new_input(id, input)).collect(),
        }));
        for (key, input_ids) in &call.batches {
            events.push(Event::KeyKept(KeyKept {
                function_call_id: id.to_owned(),
                idempotency_key: key.clone(),
                input_ids: input_ids.clone(),
            }));
        }
        for (id, input) in inputs() {
            if input.retry_count > 0 {
                // What is left of the pause before the try is not kept.
                events.push(Event::InputRetried(InputRetried {
                    input_id: id.clone(),
                    retry_count: input.retry_count,
                    not_before: 0.0,
                }));
            }
            running_events(id, input, events);
        }
        for id in &call.ended {
            if let Some(Input {
                phase: Phase::Ended(output),
                ..
            }) = self.inputs.get(id)
            {
                events.push(Event::InputEnded(InputEnded {
                    input_id: output.input_id.clone(),
                    result: output.result.clone(),
                    data_format: output.data_format,
                    task_id: output.task_id.clone(),
                    started_at: output.input_started_at,
                    ended_at: output.output_created_at,
                }));
            }
        }
    }
}

fn new_input(input_id: &str, input: &Input) -> NewInput {
    let content = match &input.phase {
        Phase::Waiting { input } | Phase::Running { input, .. } => Some(input.clone()),
        // Nobody asks for the arguments of what is over.
        Phase::Ended(_) => None,
    };
    NewInput {
        input_id: input_id.to_owned(),
        idx: input.idx,
        input: content,
    }
}

fn running_events(input_id: &str, input: &Input, events: &mut Vec<Event>) {
    let Phase::Running {
        task_id,
        started_at,
        deadline,
        limit,
        cancelled,
        ..
    } = &input.phase
    else {
        return;
    };
    events.push(Event::InputStarted(InputStarted {
        input_id: input_id.to_owned(),
        task_id: task_id.clone(),
        started_at: *started_at,
        deadline: *deadline,
        limit: Some(*limit),
    }));
    if *cancelled {
        events.push(Event::CancelRequested(CancelRequested {
            input_id: input_id.to_owned(),
        }));
    }
}

fn container_events(task_id: &str, container: &Container, events: &mut Vec<Event>) {
    events.push(Event::ContainerStarting(ContainerStarting {
        task_id: task_id.to_owned(),
        function_id: container.function_id.clone(),
        spec_hash: container.spec_hash.clone(),
        created_at: container.created_at,
        max_concurrent_inputs: container.capacity as u64,
        log_path: container.log_path.as_os_str().as_bytes().to_vec(),
        max_log_bytes: container.max_log_bytes,
    }));
    if let Some(ProcessKey { pid, start_time }) = container.process {
        events.push(Event::ContainerStarted(ContainerStarted {
            task_id: task_id.to_owned(),
            pid,
            start_time,
        }));
    }
    if container.stop_requested {
        events.push(Event::StopRequested(StopRequested {
            task_id: task_id.to_owned(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use modal_api::wire::GenericResult;

    use crate::{
        record::{
            CallCreated, CancelRequested, ContainerStarted, ContainerStarting, Event, InputEnded,
            InputRequeued, InputRetried, InputStarted, InputsAdded, NewInput, StopRequested,
        },
        state::{MAX_FINISHED_CALLS, State},
    };

    fn call(id: &str, inputs: &[&str]) -> Event {
        let inputs = new(inputs);
        let key = format!("key of {id}");
        Event::CallCreated(CallCreated {
            function_call_id: id.into(),
            function_id: "fu".into(),
            idempotency_key: key,
            inputs,
            ..Default::default()
        })
    }

    fn new(ids: &[&str]) -> Vec<NewInput> {
        ids.iter()
            .map(|id| NewInput {
                input_id: (*id).into(),
                input: Some(Default::default()),
                ..Default::default()
            })
            .collect()
    }

    fn started(id: &str) -> Event {
        Event::InputStarted(InputStarted {
            input_id: id.into(),
            task_id: "ta".into(),
            started_at: 1.0,
            deadline: 2.0,
            limit: None,
        })
    }

    fn ended(id: &str, moment: f64) -> Event {
        let result = Some(GenericResult {
            exception: format!("end of {id}"),
            ..Default::default()
        });
        Event::InputEnded(InputEnded {
            input_id: id.into(),
            result,
            ended_at: moment,
            ..Default::default()
        })
    }

    fn fold(events: Vec<Event>) -> State {
        let mut state = State::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    /// Batches are kept in a map: their order is not part of the state.
    fn sorted(events: &[Event]) -> Vec<String> {
        let mut lines: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_state_is_made_again_by_its_events() {
        let added = InputsAdded {
            function_call_id: "fc-2".into(),
            idempotency_key: "second".into(),
            inputs: new(&["c"]),
            created_at: 5.0,
        };
        let state = fold(vec![
            Event::ContainerStarting(ContainerStarting {
                task_id: "ta".into(),
                function_id: "fu".into(),
                max_concurrent_inputs: 3,
                ..Default::default()
            }),
            Event::ContainerStarted(ContainerStarted {
                task_id: "ta".into(),
                pid: 7,
                start_time: 8,
            }),
            Event::StopRequested(StopRequested {
                task_id: "ta".into(),
            }),
            call("fc-1", &["a"]),
            call("fc-2", &["b"]),
            Event::InputsAdded(added),
            call("fc-3", &["d", "e"]),
            started("a"),
            started("b"),
            started("d"),
            Event::CancelRequested(CancelRequested {
                input_id: "b".into(),
            }),
            Event::InputRequeued(InputRequeued {
                input_id: "d".into(),
            }),
            ended("a", 3.0),
        ]);
        let again = fold(state.events());
        assert_eq!(sorted(&again.events()), sorted(&state.events()));
        assert_eq!(again.keys.len(), 4);
        assert!(again.containers["ta"].stop_requested);
        assert_eq!(Vec::from(again.queues["fu"].clone()), ["c", "d", "e"]);
        assert_eq!(
            again.containers["ta"].running.iter().collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn an_input_tried_several_times_waits_once_after_a_restart() {
        let retried = |number: u32| {
            Event::InputRetried(InputRetried {
                input_id: "a".into(),
                retry_count: number,
                not_before: f64::from(number),
            })
        };
        let mut events = vec![call("fc-1", &["a"])];
        for number in 1..=3 {
            events.extend([started("a"), retried(number)]);
        }
        let mut state = fold(events);
        assert_eq!(state.release_delayed(2.0), Some(3.0));
        assert!(state.queues["fu"].is_empty());
        assert_eq!(state.release_delayed(9.0), None);
        assert_eq!(state.queues["fu"], ["a"]);
        // Released by nobody while a journal is read: what runs waits no more.
        let mut state = fold(vec![
            call("fc-1", &["a"]),
            started("a"),
            retried(1),
            started("a"),
            Event::InputRequeued(InputRequeued {
                input_id: "a".into(),
            }),
        ]);
        assert_eq!(state.release_delayed(9.0), None);
        assert_eq!(state.queues["fu"], ["a"]);
    }

    #[test]
    fn old_calls_are_forgotten_by_number_and_by_age() {
        let mut state = State::default();
        for number in 0..MAX_FINISHED_CALLS + 2 {
            let (fc, input) = (format!("fc-{number}"), format!("in-{number}"));
            state.apply(call(&fc, &[&input]));
            state.apply(ended(&input, number as f64));
        }
        assert_eq!(
            (state.calls.len(), state.inputs.len(), state.keys.len()),
            (MAX_FINISHED_CALLS, MAX_FINISHED_CALLS, MAX_FINISHED_CALLS)
        );
        assert!(!state.calls.contains_key("fc-1") && state.calls.contains_key("fc-2"));
        state.apply(call("fc-open", &["open"]));
        state.forget_ended_before(MAX_FINISHED_CALLS as f64);
        assert_eq!(state.calls.len(), 3);
        assert!(state.queues["fu"].contains(&"open".to_owned()));
    }
}

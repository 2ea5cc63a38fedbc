//! What becomes of inputs when something goes wrong: a container ends, a time limit passes, a call is cancelled with its container.

use std::{io, process::ExitStatus, time::Duration};

use modal_api::wire::{GenericResult, generic_result::GenericStatus};

use crate::{
    app_parts,
    clock::Moment,
    core::{Core, Ending, Inner},
    log_file,
    logs::Origin,
    process,
    record::{ContainerEnded, Event, InputRequeued},
    state::Phase,
};

/// So many containers in a row may end before their first request for inputs; then what waits fails.
const MAX_CRASHES: u32 = 3;
const FIRST_PAUSE: f64 = 0.1;
const SIGKILL: i32 = 9;

/// How a container's process ended.
#[derive(Debug)]
pub(crate) enum Exit {
    Status(ExitStatus),
    /// It ended when it was nobody's child any more.
    Unseen,
    NotStarted(io::Error),
}

impl Core {
    /// Cleans up after a container and gives what it worked on its end.
    pub(crate) fn container_ended(&self, task_id: &str, exit: &Exit) {
        let log_path = self
            .lock()
            .state
            .containers
            .get(task_id)
            .map(|container| container.log_path.clone());
        let last_lines = log_path
            .map(|path| log_file::tail(&path))
            .unwrap_or_default();
        let oom_kills = process::kernel_oom_kills();
        let at = self.clock.moment();

        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(container) = inner.state.containers.get(task_id) else {
            return;
        };
        let function_id = container.function_id.clone();
        let running: Vec<_> = container.running.iter().cloned().collect();
        let live = inner.live.remove(task_id);
        let doom = live.as_ref().and_then(|live| live.doom.clone());
        let mut result = fate(
            task_id,
            exit,
            doom.as_deref(),
            oom_kills > inner.oom_kills[0],
        );
        tracing::info!(
            task_id,
            function_id,
            exit = result.exception,
            inputs = running.len(),
            "container ended"
        );
        // Of one that nobody has watched it is not known; its end is no sign that containers do not come up.
        let has_come_up =
            matches!(exit, Exit::Unseen) || live.as_ref().is_none_or(|live| live.has_asked);
        let is_news = !running.is_empty() || !has_come_up;
        if is_news && let Some(app_id) = app_parts::app_of(&inner.state.rows, &function_id) {
            let origin = Origin {
                app_id,
                task_id: task_id.to_owned(),
                function_id: function_id.clone(),
                ..Default::default()
            };
            self.logs.say(&origin, at.wall, &result.exception);
        }
        result.traceback = last_lines;

        for input_id in running {
            let is_cancelled = matches!(
                inner.state.inputs.get(&input_id).map(|input| &input.phase),
                Some(Phase::Running {
                    cancelled: true,
                    ..
                })
            );
            let mut result = result.clone();
            if is_cancelled {
                result.status = GenericStatus::Terminated.into();
            }
            inner.note_ended(&input_id, ending(result), at);
        }
        let has_crashed = !has_come_up && !inner.stopping;
        inner.note(Event::ContainerEnded(ContainerEnded {
            task_id: task_id.to_owned(),
        }));
        if has_crashed {
            let said = live.and_then(|live| live.task_result);
            self.count_crash(inner, &function_id, init_failure(said, result), at);
        }
        self.end_given_back(inner, &function_id);
        self.dispatch(inner, &function_id);
    }

    fn count_crash(
        &self,
        inner: &mut Inner,
        function_id: &str,
        failure: GenericResult,
        at: Moment,
    ) {
        let Some(function) = inner.functions.get_mut(function_id) else {
            return;
        };
        function.crashes += 1;
        if function.crashes < MAX_CRASHES {
            function.not_before = at.now + FIRST_PAUSE * f64::from(1 << function.crashes);
            return;
        }
        function.crashes = 0;
        function.keeps_warm = false;
        tracing::warn!(
            function_id,
            failure = failure.exception,
            "containers do not come up: what waits fails"
        );
        let waiting: Vec<_> = inner
            .state
            .queues
            .get(function_id)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for input_id in waiting {
            inner.note_ended(&input_id, ending(failure.clone()), at);
        }
    }

    /// Ends inputs that are over their time. A container that works on nothing else is killed at once; in a shared one the input is
    /// cancelled, and no new ones come in until it has been given up.
    pub(crate) fn end_overdue_inputs(&self, inner: &mut Inner, now: f64) {
        let at = Moment {
            now,
            wall: self.clock.wall(),
        };
        let all = inner.state.containers.iter();
        let overdue: Vec<(String, String, f64)> = all
            .flat_map(|(task_id, container)| {
                container
                    .running
                    .iter()
                    .map(move |input_id| (task_id, input_id))
            })
            .filter_map(
                |(task_id, input_id)| match inner.state.inputs.get(input_id)?.phase {
                    Phase::Running {
                        deadline, limit, ..
                    } if deadline <= now => Some((task_id.clone(), input_id.clone(), limit)),
                    _ => None,
                },
            )
            .collect();
        for (task_id, input_id, limit) in overdue {
            let limit = Duration::from_millis((limit * 1000.0).round() as u64);
            tracing::info!(task_id, input_id, ?limit, "input is over its time");
            let text = format!("input {input_id} ran for longer than {limit:?}");
            inner.note_ended(&input_id, Ending::new(GenericStatus::Timeout, text), at);
            let is_empty = inner
                .state
                .containers
                .get(&task_id)
                .is_none_or(|container| container.running.is_empty());
            let Some(live) = inner.live.get_mut(&task_id) else {
                continue;
            };
            if is_empty {
                self.doom(
                    inner,
                    &task_id,
                    format!("input {input_id} was over its time"),
                );
            } else {
                live.overdue.push(input_id.clone());
                live.cancellations.push((input_id, None));
                live.cancel_bell.notify_waiters();
            }
        }
        // What was overdue in a shared container, was not given up, and has no neighbours any more.
        let stuck = inner
            .live
            .iter()
            .filter(|(_, live)| !live.overdue.is_empty() && live.doom.is_none());
        let stuck: Vec<_> = stuck.map(|(task_id, _)| task_id.clone()).collect();
        for task_id in stuck {
            if inner
                .state
                .containers
                .get(&task_id)
                .is_some_and(|container| container.running.is_empty())
            {
                self.doom(
                    inner,
                    &task_id,
                    "an input over its time was not given up".to_owned(),
                );
            }
        }
    }

    /// Takes back what a container worked on that is killed for another's sake.
    pub(crate) fn requeue_neighbours(&self, inner: &mut Inner, task_id: &str) {
        let Some(container) = inner.state.containers.get(task_id) else {
            return;
        };
        let running: Vec<_> = container.running.iter().cloned().collect();
        for input_id in running {
            match inner.state.inputs.get(&input_id).map(|input| &input.phase) {
                Some(Phase::Running {
                    cancelled: true, ..
                }) => {
                    let ending = Ending::new(
                        GenericStatus::Terminated,
                        "the call was cancelled".to_owned(),
                    );
                    inner.note_ended(&input_id, ending, self.clock.moment());
                }
                _ => inner.note(Event::InputRequeued(InputRequeued { input_id })),
            }
        }
    }
}

/// The result of an input whose container has ended like this.
fn fate(
    task_id: &str,
    exit: &Exit,
    doom: Option<&str>,
    kernel_killed_for_memory: bool,
) -> GenericResult {
    use std::os::unix::process::ExitStatusExt;
    let result = |status: GenericStatus, text: String, exitcode: i32| GenericResult {
        status: status.into(),
        exception: format!("container {task_id} {text}"),
        exitcode,
        ..Default::default()
    };
    match (exit, doom) {
        (_, Some(reason)) => result(
            GenericStatus::Failure,
            format!("was killed: {reason}"),
            128 + SIGKILL,
        ),
        (Exit::NotStarted(error), None) => result(
            GenericStatus::Failure,
            format!("could not be started: {error}"),
            127,
        ),
        (Exit::Unseen, None) => {
            let text = "ended while it was not watched; its exit status is not known".to_owned();
            result(GenericStatus::Failure, text, 0)
        }
        (Exit::Status(status), None) => {
            let code = status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal))
                .unwrap_or(0);
            if status.signal() == Some(SIGKILL) && kernel_killed_for_memory {
                return result(
                    GenericStatus::KernelOomKill,
                    "was killed by the kernel: out of memory".to_owned(),
                    code,
                );
            }
            result(GenericStatus::Failure, process::describe(*status), code)
        }
    }
}

fn init_failure(said: Option<GenericResult>, seen: GenericResult) -> GenericResult {
    let said = said.unwrap_or(GenericResult {
        exception: format!(
            "{}, {MAX_CRASHES} times before it asked for inputs",
            seen.exception
        ),
        traceback: seen.traceback,
        exitcode: seen.exitcode,
        ..Default::default()
    });
    // How its data is encoded is not known.
    GenericResult {
        status: GenericStatus::InitFailure.into(),
        data_oneof: None,
        ..said
    }
}

fn ending(result: GenericResult) -> Ending {
    Ending {
        result,
        ..Ending::new(GenericStatus::Unspecified, String::new())
    }
}

#[cfg(test)]
mod tests {
    use std::{io, os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::{Exit, fate};

    fn check(exit: &Exit, doom: Option<&str>, oom: bool) -> String {
        let result = fate("ta-1", exit, doom, oom);
        format!(
            "{:?} {} {}",
            result.status(),
            result.exitcode,
            result.exception
        )
    }

    #[test]
    fn an_end_says_what_happened() {
        let exited = |code: i32| Exit::Status(ExitStatus::from_raw(code << 8));
        let signalled = |signal: i32| Exit::Status(ExitStatus::from_raw(signal));
        let cases = [
            check(&exited(7), None, false),
            check(&signalled(11), None, true),
            check(&signalled(9), None, false),
            check(&signalled(9), None, true),
            check(
                &signalled(9),
                Some("call fc-1 was cancelled with its container"),
                true,
            ),
            check(&Exit::Unseen, None, true),
            check(
                &Exit::NotStarted(io::ErrorKind::NotFound.into()),
                None,
                false,
            ),
        ];
        insta::assert_snapshot!(cases.join("\n"), @r#"
        Failure 7 container ta-1 exited with code 7
        Failure 139 container ta-1 was killed by signal 11 (SIGSEGV)
        Failure 137 container ta-1 was killed by signal 9 (SIGKILL)
        KernelOomKill 137 container ta-1 was killed by the kernel: out of memory
        Failure 137 container ta-1 was killed: call fc-1 was cancelled with its container
        Failure 0 container ta-1 ended while it was not watched; its exit status is not known
        Failure 127 container ta-1 could not be started: entity not found
        "#);
    }
}

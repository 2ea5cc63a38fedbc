//! Which container works on what waits, and when another one is started. Modal's rule: fill the containers that are there, start as
//! many as the rest needs.

use std::{cmp::Reverse, collections::HashMap};

use modal_api::wire::FileDescriptor;

use crate::{
    app_parts,
    core::{Core, Function, Inner, Live, Order},
    housekeeping::ROUND,
    ids,
    record::{ContainerStarting, Event, InputStarted},
    servers::is_wanted,
    state::Container,
};

/// A container that has room but has not asked for inputs for so long is not counted on.
const SILENCE: f64 = 15.0;

/// The answer to a container's request for inputs.
#[derive(Debug)]
pub(crate) enum Take {
    /// These ids are running in the container now.
    Inputs(Vec<String>),
    Leave,
    /// Nothing yet; at this moment the container has been idle for too long.
    Wait {
        until: f64,
    },
    /// The container is not known.
    Unknown,
}

impl Core {
    /// Wakes containers for what waits, and starts new ones for what they cannot take.
    pub(crate) fn dispatch(&self, inner: &mut Inner, function_id: &str) {
        use std::os::unix::ffi::OsStringExt;
        let now = self.clock.now();
        if let Some(moment) = inner.state.release_delayed(now) {
            self.look_at(inner, moment);
        }
        let Inner {
            state,
            functions,
            live,
            stopping,
            servers,
            ..
        } = inner;
        let Some(function) = functions.get(function_id).filter(|_| !*stopping) else {
            return;
        };
        let mut left = state
            .queues
            .get(function_id)
            .map_or(0, std::collections::VecDeque::len);

        let mut staying = staying(&state.containers, live, function_id, function);
        let count = staying.len();
        // Those that are too many take nothing.
        staying.truncate(function.spec.max_containers);
        let server = servers.get(function_id);
        // The fullest first, those at our door before those on their way: so the others become idle and leave.
        staying.sort_unstable_by_key(|(_, container, live)| {
            (live.polls == 0, Reverse(container.running.len()))
        });
        for (_, container, live) in staying {
            if left == 0 {
                break;
            }
            let room = container.capacity.saturating_sub(container.running.len());
            let is_silent = live.polls == 0 && now - live.last_poll > SILENCE;
            if room > 0 && !live.is_spent && !is_silent && live.overdue.is_empty() {
                live.work_bell.notify_waiters();
                left = left.saturating_sub(room);
            }
        }

        let spec = &function.spec;
        let for_work = left.div_ceil(spec.max_concurrent_inputs);
        let for_warmth = if function.keeps_warm {
            spec.min_containers.saturating_sub(count)
        } else {
            0
        };
        let more = match server {
            None => for_work
                .max(for_warmth)
                .min(spec.max_containers.saturating_sub(count)),
            // One at a time, also of different deployments: each would want the same port.
            Some(server) => {
                let is_free = !state
                    .containers
                    .values()
                    .any(|container| container.function_id == function_id);
                usize::from(is_free && (for_warmth > 0 || is_wanted(server, now)))
            }
        };
        if more == 0 {
            return;
        }
        if now < function.not_before {
            let moment = function.not_before;
            self.look_at(inner, moment);
            return;
        }
        for _ in 0..more {
            let task_id = ids::task();
            let Some(Function {
                spec,
                spec_hash,
                deployed,
                ..
            }) = inner.functions.get(function_id)
            else {
                return;
            };
            let log_path = match deployed {
                None => spec.log_dir.join(format!("{task_id}.log")),
                Some(_) => self.logs.output(&task_id, FileDescriptor::Stderr),
            };
            let event = Event::ContainerStarting(ContainerStarting {
                task_id: task_id.clone(),
                function_id: function_id.to_owned(),
                spec_hash: spec_hash.clone(),
                created_at: self.clock.wall(),
                max_concurrent_inputs: spec.max_concurrent_inputs as u64,
                log_path: log_path.into_os_string().into_vec(),
                max_log_bytes: spec.max_log_bytes,
            });
            if let Err(error) = inner.commit(event) {
                tracing::error!(%error, function_id, "container not started: journal could not be written");
                return;
            }
            inner.live.insert(task_id.clone(), Live::new(now));
            self.order(Order::Start(task_id));
        }
        // From now on there is something to look after.
        let startup = inner
            .functions
            .get(function_id)
            .map_or(0.0, |function| function.spec.startup_timeout.as_secs_f64());
        self.look_at(inner, now + startup.min(ROUND));
    }

    /// Gives a container what waits for it, at most `batch` inputs. `key` is the request's idempotency key: a repeated request gets the
    /// same answer.
    pub(crate) fn take_inputs(
        &self,
        task_id: &str,
        key: &str,
        batch: usize,
    ) -> Result<Take, std::io::Error> {
        let now = self.clock.now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (Some(container), Some(live)) = (
            inner.state.containers.get(task_id),
            inner.live.get_mut(task_id),
        ) else {
            return Ok(Take::Unknown);
        };
        let function = inner.functions.get_mut(&container.function_id);
        live.last_poll = now;
        if !live.has_asked {
            live.has_asked = true;
            live.idle_since = now;
            if let Some(function) = function {
                function.crashes = 0;
                function.keeps_warm = true;
            }
        }

        if let Some((last, ids)) = &live.delivered
            && last == key
            && !key.is_empty()
        {
            let ids = ids
                .iter()
                .filter(|id| container.running.contains(*id))
                .cloned()
                .collect();
            return Ok(Take::Inputs(ids));
        }
        if !live.in_doubt.is_empty() {
            let again = live.in_doubt.drain(..live.in_doubt.len().min(batch));
            let ids: Vec<_> = again.filter(|id| container.running.contains(id)).collect();
            live.delivered = Some((key.to_owned(), ids.clone()));
            return Ok(Take::Inputs(ids));
        }
        if live.is_leaving() || live.is_spent {
            return Ok(Take::Leave);
        }
        let function_id = container.function_id.clone();
        let Some(function) = inner.functions.get(&function_id) else {
            if container.running.is_empty()
                && app_parts::app_of(&inner.state.rows, &function_id).is_some()
            {
                // Its app was deployed without it.
                live.leaving_since = Some(now);
                return Ok(Take::Leave);
            }
            // A new life of the emulator that has not been told of the function yet.
            return Ok(Take::Wait { until: f64::MAX });
        };
        let (idle_since, is_overdue) = (live.idle_since, !live.overdue.is_empty());
        // Of another deployment, or too many since there may be fewer: it takes nothing more and leaves once it is idle.
        let is_superfluous = function.spec_hash != container.spec_hash
            || staying(&inner.state.containers, &inner.live, &function_id, function)
                .iter()
                .skip(function.spec.max_containers)
                .any(|(id, _, _)| *id == task_id);
        let room = container
            .capacity
            .saturating_sub(container.running.len())
            .min(batch);
        let is_idle = container.running.is_empty();
        let timeout = function.spec.timeout.as_secs_f64();
        let single_use = function.spec.single_use;
        let idle_until = idle_since + function.spec.scaledown_window.as_secs_f64();
        let is_kept_warm = || {
            inner
                .state
                .containers
                .values()
                .filter(|other| other.function_id == function_id)
                .count()
                <= function.spec.min_containers
        };

        let leaves = inner.stopping
            || is_superfluous
            || (idle_until <= now
                && inner
                    .state
                    .queues
                    .get(&function_id)
                    .is_none_or(|queue| queue.is_empty())
                && !is_kept_warm());
        if is_idle && leaves {
            if let Some(live) = inner.live.get_mut(task_id) {
                live.leaving_since = Some(now);
            }
            return Ok(Take::Leave);
        }
        if inner.stopping || is_superfluous || is_overdue {
            return Ok(Take::Wait { until: f64::MAX });
        }

        let waiting = inner.state.queues.get(&function_id).into_iter().flatten();
        let ids: Vec<String> = waiting.take(room).cloned().collect();
        if ids.is_empty() {
            let until = if is_idle && idle_until > now {
                idle_until
            } else {
                f64::MAX
            };
            return Ok(Take::Wait { until });
        }
        let (deadline, wall) = (now + timeout, self.clock.wall());
        for input_id in &ids {
            let event = InputStarted {
                input_id: input_id.clone(),
                task_id: task_id.to_owned(),
                started_at: wall,
                deadline,
                limit: Some(timeout),
            };
            inner.commit(Event::InputStarted(event))?;
        }
        if let Some(live) = inner.live.get_mut(task_id) {
            live.delivered = Some((key.to_owned(), ids.clone()));
            live.is_spent = single_use;
        }
        self.look_at(inner, deadline);
        Ok(Take::Inputs(ids))
    }
}

/// The containers of a function's present deployment that are not about to leave, the oldest first.
fn staying<'a>(
    containers: &'a HashMap<String, Container>,
    live: &'a HashMap<String, Live>,
    function_id: &str,
    function: &Function,
) -> Vec<(&'a str, &'a Container, &'a Live)> {
    let mut staying: Vec<_> = containers
        .iter()
        .filter(|(_, container)| {
            container.function_id == function_id && container.spec_hash == function.spec_hash
        })
        .filter_map(|(id, container)| Some((id.as_str(), container, live.get(id)?)))
        .filter(|(_, container, live)| {
            !live.is_leaving() && (!live.is_spent || !container.running.is_empty())
        })
        .collect();
    staying.sort_unstable_by(|(one, a, _), (other, b, _)| {
        let by_age = a.created_at.total_cmp(&b.created_at);
        by_age.then_with(|| one.cmp(other))
    });
    staying
}

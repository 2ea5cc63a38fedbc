//! One call of one function of one plugin: a fresh store, its limits, its budget, and what is said when it ends badly.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Instance, InstancePre, ResourceTable};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::bindings::host::{bytes, types};
use crate::directory::Directory;
use crate::engine::{EngineRoom, Running};
use crate::imports::HostError;
use crate::{Error, Grants, INLINE_BYTES, Payload};

/// Elements of a guest's tables.
pub(crate) const MOST_TABLE_ELEMENTS: usize = 100_000;
/// Calls of host functions within one call of a plugin.
const MOST_HOST_CALLS: u32 = 200_000;
/// Bytes that cross between host and guest within one call, both ways together.
const MOST_BYTES: u64 = 1 << 30;
/// Handles that a guest may hold.
const MOST_HANDLES: usize = 1_000;
/// Every text a guest hands to people is cut here.
pub(crate) const MOST_TEXT: usize = 8 << 10;
/// How fast large values must be moved, as bytes in a second beyond the deadline.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// How long a call waits for others to end.
const LONGEST_QUEUE: Duration = Duration::from_secs(60);

/// What a plugin's host functions see of the plugin.
pub(crate) struct Context {
    pub(crate) plugin: String,
    pub(crate) settings: serde_json::Value,
    pub(crate) stores: BTreeMap<String, Directory>,
    pub(crate) grants: Grants,
    pub(crate) spool_dir: Arc<Path>,
    /// While a plugin describes itself it may not ask anything.
    pub(crate) describing: bool,
}

pub(crate) struct CallState {
    pub(crate) context: Arc<Context>,
    pub(crate) table: ResourceTable,
    /// The guest's last words: what a panic hook wrote.
    pub(crate) last_error: Option<String>,
    began: Instant,
    deadline: Instant,
    memory: Memory,
    calls_left: u32,
    bytes_left: u64,
}

impl CallState {
    /// Counts a host function; an error ends the call.
    pub(crate) fn count_call(&mut self) -> wasmtime::Result<()> {
        if self.context.describing {
            wasmtime::bail!("`describe` may not call the host");
        }
        self.calls_left = self.calls_left.checked_sub(1).ok_or_else(|| {
            wasmtime::format_err!("more than {MOST_HOST_CALLS} calls of host functions")
        })?;
        Ok(())
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn count_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.bytes_left = self.bytes_left.checked_sub(bytes as u64).ok_or_else(|| {
            wasmtime::format_err!("more than {MOST_BYTES} bytes between plugin and host")
        })?;
        Ok(())
    }
}

/// Refuses memory beyond the grant; the guest sees a failed allocation, the operator sees why.
struct Memory {
    limit: usize,
    refused: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.refused |= desired > self.limit;
        Ok(desired <= self.limit)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MOST_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        4
    }
}

/// A fresh instance, ready to be called once.
pub(crate) struct Call {
    pub(crate) store: Store<CallState>,
    pub(crate) instance: Instance,
    pub(crate) limit: TimeLimit,
    function: &'static str,
    _running: Running,
    _turn: OwnedSemaphorePermit,
}

/// How long a call may take, with the time that large values need.
#[derive(Clone, Copy)]
pub(crate) struct TimeLimit {
    allowed: Duration,
    deadline: Instant,
}

impl TimeLimit {
    /// Waits for a call into a guest. Epochs stop guest code; this also ends a wait for the host.
    pub(crate) async fn watch<T>(
        self,
        work: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let until = tokio::time::Instant::from_std(self.deadline + Duration::from_millis(20));
        match tokio::time::timeout_at(until, work).await {
            Ok(answer) => answer,
            Err(_) => Err(Trap::Interrupt.into()),
        }
    }
}

impl Call {
    pub(crate) async fn begin(
        room: &EngineRoom,
        pre: &InstancePre<CallState>,
        context: &Arc<Context>,
        function: &'static str,
        value_bytes: u64,
    ) -> Result<Call, Error> {
        let turn = tokio::time::timeout(LONGEST_QUEUE, room.turns.clone().acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Error::Unavailable {
                plugin: context.plugin.clone(),
                message: format!("other plugin calls kept it waiting for {LONGEST_QUEUE:?}"),
            })?;
        let allowed = context.grants.deadline
            + Duration::from_secs(value_bytes.min(1 << 40) / BYTES_PER_SECOND);
        let began = Instant::now();
        let deadline = began + allowed;
        let memory_bytes = context.grants.memory_bytes as usize;
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_HANDLES);
        let mut store = Store::new(
            &room.engine,
            CallState {
                context: context.clone(),
                table,
                last_error: None,
                began,
                deadline,
                memory: Memory {
                    limit: memory_bytes,
                    refused: false,
                },
                calls_left: MOST_HOST_CALLS,
                bytes_left: MOST_BYTES,
            },
        );
        store.limiter(|state| &mut state.memory);
        // What a guest may hand over in one go, before it is copied.
        store.set_hostcall_fuel(memory_bytes.max(4 * INLINE_BYTES));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            if Instant::now() >= store.data().deadline {
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::Yield(1))
        });
        let running = room.run_clock();
        let limit = TimeLimit { allowed, deadline };
        let instance = limit.watch(pre.instantiate_async(&mut store)).await;
        let instance = match instance {
            Ok(instance) => instance,
            Err(error) => return Err(explain(store.data(), function, allowed, error)),
        };
        Ok(Call {
            store,
            instance,
            limit,
            function,
            _running: running,
            _turn: turn,
        })
    }

    /// Turns what came back into an answer or into words for people.
    pub(crate) fn conclude<T>(&self, answer: wasmtime::Result<T>) -> Result<T, Error> {
        answer.map_err(|error| explain(self.store.data(), self.function, self.limit.allowed, error))
    }

    /// The same for functions that may answer with an error.
    pub(crate) fn conclude_result<T>(
        &self,
        answer: wasmtime::Result<Result<T, types::Error>>,
    ) -> Result<T, Error> {
        self.conclude(answer)?
            .map_err(|error| guest_error(&self.store.data().context.plugin, error))
    }

    pub(crate) fn misbehaved(&self, reason: impl Into<String>) -> Error {
        Error::Misbehaved {
            plugin: self.store.data().context.plugin.clone(),
            function: self.function,
            reason: reason.into(),
        }
    }
}

fn explain(
    state: &CallState,
    function: &'static str,
    allowed: Duration,
    error: wasmtime::Error,
) -> Error {
    let plugin = state.context.plugin.clone();
    let trap = error.downcast_ref::<Trap>().copied();
    if trap == Some(Trap::Interrupt) {
        return Error::Deadline {
            plugin,
            function,
            allowed,
        };
    }
    let mut reason = match (trap, &state.last_error) {
        (Some(Trap::UnreachableCodeReached), Some(words)) => words.clone(),
        (Some(trap), Some(words)) => format!("{trap}; before that: {words}"),
        (Some(trap), None) => trap.to_string(),
        (None, _) => error.root_cause().to_string(),
    };
    if state.memory.refused {
        reason.push_str(&format!(
            "\nhint: it asked for more memory than its grant of {} MiB",
            state.memory.limit >> 20
        ));
    }
    Error::Trapped {
        plugin,
        function,
        reason: cut(reason, MOST_TEXT),
    }
}

fn guest_error(plugin: &str, error: types::Error) -> Error {
    let plugin = plugin.to_owned();
    let text = |message| cut(message, MOST_TEXT);
    match error {
        types::Error::NotFound(message) => Error::NotFound {
            plugin,
            message: text(message),
        },
        types::Error::Denied(message) => Error::Denied {
            plugin,
            message: text(message),
        },
        types::Error::Invalid(message) => Error::Invalid {
            plugin,
            message: text(message),
        },
        types::Error::Conflict(message) => Error::Conflict {
            plugin,
            message: text(message),
        },
        types::Error::TooLarge(message) => Error::TooLarge {
            plugin,
            message: text(message),
        },
        types::Error::Unavailable(message) => Error::Unavailable {
            plugin,
            message: text(message),
        },
        types::Error::Failed(message) => Error::Failed {
            plugin,
            message: text(message),
        },
    }
}

/// At most `most` bytes of a text, marked when something is missing.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

impl Call {
    /// A value on its way into the guest.
    pub(crate) async fn hand_over(&mut self, value: Payload) -> Result<bytes::Payload, Error> {
        let lowered = self.store.data_mut().lower(value).await;
        let lowered = lowered.map_err(|error| match error {
            HostError::Trap(error) => error,
            HostError::Guest(error) => wasmtime::format_err!("{error:?}"),
        });
        self.conclude(lowered)
    }

    /// A value that the guest answered with.
    pub(crate) fn take_back(&mut self, value: bytes::Payload) -> Result<Payload, Error> {
        let lifted = self.store.data_mut().lift(value);
        self.conclude(lifted)
    }
}

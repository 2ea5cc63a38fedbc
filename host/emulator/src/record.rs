//! What the journal holds: every fact that must outlive the process, as one event each. Fields are only ever added.

use modal_api::wire::{FunctionInput, GenericResult};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub(crate) event: Option<Event>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Event {
    #[prost(message, tag = "1")]
    CallCreated(CallCreated),
    #[prost(message, tag = "2")]
    InputsAdded(InputsAdded),
    #[prost(message, tag = "3")]
    InputStarted(InputStarted),
    #[prost(message, tag = "4")]
    InputRequeued(InputRequeued),
    #[prost(message, tag = "5")]
    CancelRequested(CancelRequested),
    #[prost(message, tag = "6")]
    InputEnded(InputEnded),
    #[prost(message, tag = "7")]
    ContainerStarting(ContainerStarting),
    #[prost(message, tag = "8")]
    ContainerStarted(ContainerStarted),
    #[prost(message, tag = "9")]
    ContainerEnded(ContainerEnded),
    #[prost(message, tag = "10")]
    KeyKept(KeyKept),
    #[prost(message, tag = "11")]
    RowsChanged(RowsChanged),
    #[prost(message, tag = "12")]
    InputRetried(InputRetried),
    #[prost(message, tag = "13")]
    StopRequested(StopRequested),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NewInput {
    #[prost(string, tag = "1")]
    pub(crate) input_id: String,
    #[prost(int32, tag = "2")]
    pub(crate) idx: i32,
    #[prost(message, optional, tag = "3")]
    pub(crate) input: Option<FunctionInput>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CallCreated {
    #[prost(string, tag = "1")]
    pub(crate) function_call_id: String,
    #[prost(string, tag = "2")]
    pub(crate) function_id: String,
    #[prost(int32, tag = "3")]
    pub(crate) invocation_type: i32,
    #[prost(double, tag = "4")]
    pub(crate) created_at: f64,
    /// Empty if the caller sent none.
    #[prost(string, tag = "5")]
    pub(crate) idempotency_key: String,
    #[prost(message, repeated, tag = "6")]
    pub(crate) inputs: Vec<NewInput>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InputsAdded {
    #[prost(string, tag = "1")]
    pub(crate) function_call_id: String,
    #[prost(string, tag = "2")]
    pub(crate) idempotency_key: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) inputs: Vec<NewInput>,
    #[prost(double, tag = "4")]
    pub(crate) created_at: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InputStarted {
    #[prost(string, tag = "1")]
    pub(crate) input_id: String,
    #[prost(string, tag = "2")]
    pub(crate) task_id: String,
    /// By the wall clock.
    #[prost(double, tag = "3")]
    pub(crate) started_at: f64,
    /// By the clock of limits.
    #[prost(double, tag = "4")]
    pub(crate) deadline: f64,
    #[prost(double, optional, tag = "5")]
    pub(crate) limit: Option<f64>,
}

/// The container was taken away for a reason that is not this input's: it starts again elsewhere.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InputRequeued {
    #[prost(string, tag = "1")]
    pub(crate) input_id: String,
}

/// The input has failed and is tried again: it waits once more, not before a moment.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InputRetried {
    #[prost(string, tag = "1")]
    pub(crate) input_id: String,
    /// How many tries came before.
    #[prost(uint32, tag = "2")]
    pub(crate) retry_count: u32,
    #[prost(double, tag = "3")]
    pub(crate) not_before: f64,
}

/// The container that works on this input is to give it up.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CancelRequested {
    #[prost(string, tag = "1")]
    pub(crate) input_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InputEnded {
    #[prost(string, tag = "1")]
    pub(crate) input_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) result: Option<GenericResult>,
    #[prost(int32, tag = "3")]
    pub(crate) data_format: i32,
    #[prost(string, tag = "4")]
    pub(crate) task_id: String,
    /// Zero if it never started.
    #[prost(double, tag = "5")]
    pub(crate) started_at: f64,
    #[prost(double, tag = "6")]
    pub(crate) ended_at: f64,
}

/// Written before the process is started, so that no process can be unknown.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStarting {
    #[prost(string, tag = "1")]
    pub(crate) task_id: String,
    #[prost(string, tag = "2")]
    pub(crate) function_id: String,
    #[prost(string, tag = "3")]
    pub(crate) spec_hash: String,
    #[prost(double, tag = "4")]
    pub(crate) created_at: f64,
    #[prost(uint64, tag = "5")]
    pub(crate) max_concurrent_inputs: u64,
    /// Bytes of the path: it need not be text.
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) log_path: Vec<u8>,
    #[prost(uint64, tag = "7")]
    pub(crate) max_log_bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStarted {
    #[prost(string, tag = "1")]
    pub(crate) task_id: String,
    #[prost(int32, tag = "2")]
    pub(crate) pid: i32,
    /// Clock ticks since boot, from `/proc/<pid>/stat`: a later process with the same pid has another.
    #[prost(uint64, tag = "3")]
    pub(crate) start_time: u64,
}

/// The container is to take no more inputs and to end after those that it has.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StopRequested {
    #[prost(string, tag = "1")]
    pub(crate) task_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerEnded {
    #[prost(string, tag = "1")]
    pub(crate) task_id: String,
}

/// Only in a rewritten journal: the inputs that came with one idempotency key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyKept {
    #[prost(string, tag = "1")]
    pub(crate) function_call_id: String,
    #[prost(string, tag = "2")]
    pub(crate) idempotency_key: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) input_ids: Vec<String>,
}

/// Rows that change together.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RowsChanged {
    #[prost(message, repeated, tag = "1")]
    pub(crate) rows: Vec<RowChange>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RowChange {
    /// The table's byte and the row's own key.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// None: the row is gone.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) value: Option<Vec<u8>>,
}

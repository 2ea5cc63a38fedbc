//! The list of a function's calls, for those who want to know about many at once.

use modal_api::wire::{
    FunctionCallFetchRequest, FunctionCallInputInfo, FunctionCallInputStatus,
    function_call_fetch_request::QueryOneof, generic_result::GenericStatus,
};
use prost_types::Timestamp;

use crate::{
    core::Core,
    definitions::FunctionRow,
    rows::Rows,
    state::{Input, Phase},
};

const DEFAULT_LIMIT: usize = 100;

impl Core {
    /// The inputs of a function's calls, the oldest first; of more than the limit the newest.
    pub(crate) fn fetch(&self, request: &FunctionCallFetchRequest) -> Vec<FunctionCallInputInfo> {
        let (since, until, limit) = match &request.query_oneof {
            Some(QueryOneof::Range(range)) => (
                range.since.as_ref().map(seconds),
                range.until.as_ref().map(seconds),
                range.limit,
            ),
            Some(QueryOneof::Tail(tail)) => (None, None, tail.count),
            None => (None, None, 0),
        };
        let limit = usize::try_from(limit)
            .ok()
            .filter(|limit| *limit > 0)
            .unwrap_or(DEFAULT_LIMIT);
        let inner = self.lock();
        let mut found: Vec<&Input> = inner
            .state
            .inputs
            .values()
            .filter(|input| {
                inner
                    .state
                    .calls
                    .get(&input.function_call_id)
                    .is_some_and(|call| {
                        call.function_id == request.function_id
                            || request.all_variants
                                && is_variant(
                                    &inner.state.rows,
                                    &call.function_id,
                                    &request.function_id,
                                )
                    })
            })
            .filter(|input| {
                since.is_none_or(|since| input.enqueued_at >= since)
                    && until.is_none_or(|until| input.enqueued_at < until)
            })
            .collect();
        found.sort_by(|one, other| one.enqueued_at.total_cmp(&other.enqueued_at));
        let surplus = found.len().saturating_sub(limit);
        found.into_iter().skip(surplus).map(info).collect()
    }
}

fn is_variant(rows: &Rows, function_id: &str, of: &str) -> bool {
    rows.get::<FunctionRow>(function_id)
        .is_some_and(|row| row.parent == of)
}

fn info(input: &Input) -> FunctionCallInputInfo {
    let mut info = FunctionCallInputInfo {
        enqueued_at: Some(timestamp(input.enqueued_at)),
        function_call_id: input.function_call_id.clone(),
        ..Default::default()
    };
    match &input.phase {
        Phase::Waiting { .. } => info.set_status(FunctionCallInputStatus::Pending),
        Phase::Running {
            started_at,
            task_id,
            ..
        } => {
            info.set_status(FunctionCallInputStatus::Running);
            info.started_at = Some(timestamp(*started_at));
            info.container_id = Some(task_id.clone());
        }
        Phase::Ended(output) => {
            info.set_status(status(
                output
                    .result
                    .as_ref()
                    .map(modal_api::wire::GenericResult::status)
                    .unwrap_or_default(),
            ));
            if output.input_started_at > 0.0 {
                info.started_at = Some(timestamp(output.input_started_at));
                info.execution_time_seconds =
                    Some(output.output_created_at - output.input_started_at);
                info.container_id = Some(output.task_id.clone());
            }
        }
    }
    info
}

fn status(status: GenericStatus) -> FunctionCallInputStatus {
    match status {
        GenericStatus::Success => FunctionCallInputStatus::Success,
        GenericStatus::Failure | GenericStatus::Unspecified => FunctionCallInputStatus::Failure,
        GenericStatus::Terminated => FunctionCallInputStatus::Terminated,
        GenericStatus::Timeout => FunctionCallInputStatus::Timeout,
        GenericStatus::InitFailure => FunctionCallInputStatus::InitFailure,
        GenericStatus::InternalFailure => FunctionCallInputStatus::InternalFailure,
        GenericStatus::IdleTimeout => FunctionCallInputStatus::IdleTimeout,
        GenericStatus::MemoryManagerEviction => FunctionCallInputStatus::MemoryManagerEviction,
        GenericStatus::MemoryThrashingEviction => FunctionCallInputStatus::MemoryThrashingEviction,
        GenericStatus::KernelOomKill => FunctionCallInputStatus::KernelOomKill,
    }
}

fn seconds(timestamp: &Timestamp) -> f64 {
    timestamp.seconds as f64 + f64::from(timestamp.nanos) / 1e9
}

fn timestamp(seconds: f64) -> Timestamp {
    Timestamp {
        seconds: seconds.floor() as i64,
        nanos: (seconds.fract() * 1e9) as i32,
    }
}

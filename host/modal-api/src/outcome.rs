//! What became of a function call, read from the wire messages.

use chrono::{DateTime, Utc};
use ciborium::Value;

use crate::{
    Error, arguments, pickle,
    wire::{self, DataFormat, generic_result::DataOneof},
};

pub use crate::wire::generic_result::GenericStatus;

/// A call that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall {
    pub function_call_id: String,
    pub input_id: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CallStatus {
    /// Waiting or running.
    Pending,
    Ended(CallResult),
    /// The server has no such call any more: the result was kept for its time, or the call was never made there.
    Expired,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CallResult {
    /// A status that this build does not know reads as `Failure`.
    pub status: GenericStatus,
    /// The exception's `repr`, or what the server saw; empty on success.
    pub exception: String,
    pub traceback: String,
    /// The process's exit code if that is how the call ended, else 0.
    pub exit_code: i32,
    /// The returned value if it came in CBOR or as a pickle of plain data; no other pickle is read.
    pub value: Option<Value>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub container_id: Option<String>,
    pub retry_count: u32,
}

impl CallResult {
    pub(crate) fn read(item: wire::FunctionGetOutputsItem) -> Result<Self, Error> {
        let format = item.data_format();
        let result = item
            .result
            .ok_or_else(|| Error::Unexpected("an output without a result".to_owned()))?;
        let status = match GenericStatus::try_from(result.status) {
            Ok(GenericStatus::Unspecified) | Err(_) => GenericStatus::Failure,
            Ok(known) => known,
        };
        let value = match (&result.data_oneof, format) {
            (Some(DataOneof::Data(data)), DataFormat::Cbor) => Some(arguments::decode(data)?),
            (Some(DataOneof::Data(data)), DataFormat::Pickle) => {
                pickle::read(data).ok().and_then(pickle::to_cbor)
            }
            _ => None,
        };
        Ok(Self {
            status,
            exception: result.exception,
            traceback: result.traceback,
            exit_code: result.exitcode,
            value,
            started_at: instant(item.input_started_at),
            ended_at: instant(item.output_created_at),
            container_id: Some(item.task_id).filter(|id| !id.is_empty()),
            retry_count: item.retry_count,
        })
    }
}

/// Modal's clocks are seconds as a float; zero means "not yet".
pub(crate) fn instant(seconds: f64) -> Option<DateTime<Utc>> {
    if seconds <= 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "microseconds since 1970 fit for 290,000 years"
    )]
    DateTime::from_timestamp_micros((seconds * 1e6) as i64)
}

//! What the end of a call means for the try it ran.

use std::fmt;

use modal_api::{CallResult, GenericStatus};

/// Of what a container says, in characters.
const LONGEST_REASON: usize = 400;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The worker returned. Its task instance has reported by itself, or was gone when it came.
    Returned,
    /// It came a second time, and another container has the try: that one's heartbeats tell what becomes of it.
    Taken,
    /// The container died, ran out of memory, or raised.
    Died { what: String },
    /// It ran longer than `executor.task_timeout`.
    TimedOut,
    /// Somebody cancelled it, or stopped its app or container.
    Cancelled,
    /// The container used more memory than there was, or than it had asked for.
    OutOfMemory,
    /// The container never became ready, or Modal lost it: the task is not to blame.
    PlatformFault { what: String },
    /// It was never made: what its task asks for can't be had.
    Refused { what: String },
    /// The server does not know the call any more.
    Unknown,
}

impl Fate {
    pub(crate) fn of(result: &CallResult) -> Self {
        match result.status {
            GenericStatus::Success if is_taken(result) => Self::Taken,
            GenericStatus::Success => Self::Returned,
            GenericStatus::Timeout => Self::TimedOut,
            GenericStatus::Terminated => Self::Cancelled,
            GenericStatus::InitFailure | GenericStatus::InternalFailure => {
                Self::PlatformFault { what: said(result) }
            }
            GenericStatus::KernelOomKill
            | GenericStatus::MemoryManagerEviction
            | GenericStatus::MemoryThrashingEviction => Self::OutOfMemory,
            GenericStatus::Unspecified | GenericStatus::Failure | GenericStatus::IdleTimeout => {
                Self::Died { what: said(result) }
            }
        }
    }

    /// Whether whoever runs containers is to blame, so that no try is used up. `started`: the task reported that it runs;
    /// a container that dies then may have died of the task.
    #[must_use]
    pub fn is_platform_fault(&self, started: bool) -> bool {
        match self {
            Self::PlatformFault { .. } | Self::Cancelled => true,
            Self::Unknown | Self::Taken | Self::Died { .. } | Self::OutOfMemory => !started,
            Self::Returned | Self::TimedOut | Self::Refused { .. } => false,
        }
    }
}

/// What a worker answers that was turned away.
fn is_taken(result: &CallResult) -> bool {
    let fields = result.value.as_ref().and_then(|value| value.as_map());
    fields.is_some_and(|fields| {
        fields.iter().any(|(name, value)| {
            name.as_text() == Some("state") && value.as_text() == Some("already_taken")
        })
    })
}

/// Short, and of what Postgres takes.
fn said(result: &CallResult) -> String {
    let line = result.exception.lines().next().unwrap_or_default();
    let line: String = line
        .chars()
        .filter(|c| *c != '\0')
        .take(LONGEST_REASON)
        .collect();
    match (line.is_empty(), result.exit_code) {
        (false, _) => line,
        (true, 0) => "no reason was given".to_owned(),
        (true, code) => format!("its process ended with exit code {code}"),
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("the worker returned without a report"),
            Self::Taken => f.write_str("it was delivered again, and another container has the try"),
            Self::Died { what } => write!(f, "the worker died: {what}"),
            Self::TimedOut => f.write_str(
                "the call ran longer than executor.task_timeout, or the timeout in its executor_config",
            ),
            Self::Cancelled => {
                f.write_str("its call was cancelled, or its container stopped, from outside")
            }
            Self::OutOfMemory => f.write_str(
                "the container was killed for its memory; ask for more with executor_config={\"memory\": MiB}",
            ),
            Self::PlatformFault { what } => write!(f, "the platform could not run it: {what}"),
            Self::Refused { what } => write!(f, "it can't be started: {what}"),
            Self::Unknown => f.write_str("the call is not known any more"),
        }
    }
}

//! What the end of a call means for the try it ran.

use std::fmt;

use modal_api::{CallResult, GenericStatus};

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The worker returned. Its task instance has reported by itself, or was taken or gone when it came.
    Returned,
    /// The container died, ran out of memory, or raised.
    Died { what: String },
    /// It ran longer than `executor.task_timeout`.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
    /// The container never became ready, or Modal lost it: the task is not to blame.
    PlatformFault { what: String },
    /// The server does not know the call any more.
    Unknown,
}

impl Fate {
    pub(super) fn of(result: &CallResult) -> Self {
        match result.status {
            GenericStatus::Success => Self::Returned,
            GenericStatus::Timeout => Self::TimedOut,
            GenericStatus::Terminated => Self::Cancelled,
            GenericStatus::InitFailure | GenericStatus::InternalFailure => Self::PlatformFault {
                what: first_line(&result.exception),
            },
            GenericStatus::KernelOomKill => Self::Died {
                what: "the container was killed for its memory".to_owned(),
            },
            _ => Self::Died {
                what: first_line(&result.exception),
            },
        }
    }

    /// Whether whoever runs containers is to blame, so that a try that never started is not used up.
    #[must_use]
    pub fn is_platform_fault(&self) -> bool {
        match self {
            Self::PlatformFault { .. } | Self::Unknown | Self::Died { .. } | Self::Cancelled => {
                true
            }
            Self::Returned | Self::TimedOut => false,
        }
    }
}

fn first_line(text: &str) -> String {
    match text.lines().next() {
        Some(line) if !line.is_empty() => line.to_owned(),
        _ => "no reason was given".to_owned(),
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("the worker returned without a report"),
            Self::Died { what } => write!(f, "the worker died: {what}"),
            Self::TimedOut => f.write_str("the call ran longer than executor.task_timeout"),
            Self::Cancelled => f.write_str("the call was cancelled"),
            Self::PlatformFault { what } => write!(f, "no container could run it: {what}"),
            Self::Unknown => f.write_str("the call is not known any more"),
        }
    }
}

//! What became of one try of a task.

use model::TaskInstanceState;
use plugin_host::LogOutcome;

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has this state.
    Reported(TaskInstanceState),
    /// Another worker has the try, or it is gone: nothing was run.
    AlreadyTaken,
    /// No task runner could be started, or the server did not let it start.
    NotStarted,
    /// The server said that the task should not be running any more: it was killed, nothing was reported.
    Stopped,
    /// The task ended, and the server had decided otherwise before.
    Superseded,
    /// The task ended, and the server could not be told.
    Unreported,
    /// Airflow's own supervisor ran it and reported what there was.
    Delegated,
}

/// How a try ended, for the executor and for people.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOutcome {
    pub state: Fate,
    /// The task runner's exit code, or the signal's number below zero; none if none was started or its end was not seen.
    pub exit: Option<i32>,
    /// What was out of the ordinary.
    pub detail: Option<String>,
    pub max_rss_kib: Option<u64>,
    pub cpu_seconds: Option<f64>,
}

impl Fate {
    /// The word for it; a state's own name where there is one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported(state) => state.as_str(),
            Self::AlreadyTaken => "already_taken",
            Self::NotStarted => "not_started",
            Self::Stopped => "stopped",
            Self::Superseded => "superseded",
            Self::Unreported => "unreported",
            Self::Delegated => "delegated",
        }
    }

    /// Whether the supervisor did not do its part, as opposed to a task that failed.
    pub fn is_infrastructure_failure(self) -> bool {
        matches!(self, Self::NotStarted | Self::Unreported)
    }

    pub(crate) fn log_outcome(self) -> LogOutcome {
        match self {
            Self::Reported(state) => match state {
                TaskInstanceState::Success => LogOutcome::Success,
                TaskInstanceState::Skipped => LogOutcome::Skipped,
                TaskInstanceState::UpForRetry => LogOutcome::UpForRetry,
                TaskInstanceState::Deferred
                | TaskInstanceState::UpForReschedule
                | TaskInstanceState::AwaitingInput => LogOutcome::Deferred,
                _ => LogOutcome::Failed,
            },
            Self::AlreadyTaken
            | Self::NotStarted
            | Self::Stopped
            | Self::Superseded
            | Self::Unreported
            | Self::Delegated => LogOutcome::Lost,
        }
    }
}

impl TaskOutcome {
    pub(crate) fn without_process(state: Fate, detail: impl Into<String>) -> Self {
        Self {
            state,
            exit: None,
            detail: Some(detail.into()),
            max_rss_kib: None,
            cpu_seconds: None,
        }
    }
}

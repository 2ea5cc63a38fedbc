//! What becomes of a try that ended without a report. `airflow: process_executor_events, TaskInstance.handle_failure`

use model::TaskInstanceState;

use crate::plan::Lost;

/// What is known about the try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostTry {
    pub state: TaskInstanceState,
    pub try_number: i32,
    pub max_tries: i32,
    /// Of the task; counts where a running one was cleared.
    pub retries: i32,
    /// A worker reported that the task runs.
    pub started: bool,
    /// Whoever runs containers lost it; the task itself is not to blame.
    pub platform_fault: bool,
}

/// A try that never started because of the platform is repeated for free; one that was cleared while it ran
/// starts over; all others count as failed, and are retried while tries are left.
#[must_use]
pub fn decide(lost: LostTry) -> Lost {
    if lost.state == TaskInstanceState::Restarting {
        return Lost::Cleared {
            max_tries: lost.try_number + lost.retries,
        };
    }
    if lost.platform_fault && !lost.started {
        return Lost::Requeue;
    }
    // airflow: TaskInstance.is_eligible_to_retry
    if lost.max_tries > 0 && lost.try_number <= lost.max_tries {
        Lost::UpForRetry
    } else {
        Lost::Failed
    }
}

/// `airflow: [scheduler] num_stuck_in_queued_retries`
pub const STUCK_RETRIES: i64 = 2;

/// What becomes of a task instance that nobody started for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// Scheduled again.
    Again,
    /// Failed, whatever tries are left.
    Fail,
}

/// `times`: how often this try was sent back before. `airflow: SchedulerJobRunner._maybe_requeue_stuck_ti`
#[must_use]
pub fn decide_stuck(times: i64) -> Stuck {
    if times < STUCK_RETRIES {
        Stuck::Again
    } else {
        Stuck::Fail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_task_goes_back_twice() {
        let all: Vec<Stuck> = (0..4).map(decide_stuck).collect();
        assert_eq!(all, [Stuck::Again, Stuck::Again, Stuck::Fail, Stuck::Fail]);
    }
}

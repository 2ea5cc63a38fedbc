//! What becomes of a try that ended without a report. `airflow: process_executor_events, TaskInstance.handle_failure`

use chrono::TimeDelta;
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

/// What the platform lost is repeated for free, under the same number if it never started and as one more try if it did;
/// what was cleared while it ran starts over; all others count as failed, and are retried while tries are left.
#[must_use]
pub fn decide(lost: LostTry) -> Lost {
    if lost.state == TaskInstanceState::Restarting {
        return Lost::Cleared {
            max_tries: lost.try_number + lost.retries,
        };
    }
    if lost.platform_fault {
        return if lost.started {
            Lost::Again {
                max_tries: lost.max_tries + 1,
            }
        } else {
            Lost::Requeue
        };
    }
    // airflow: TaskInstance.is_eligible_to_retry
    if lost.max_tries > 0 && lost.try_number <= lost.max_tries {
        Lost::UpForRetry
    } else {
        Lost::Failed
    }
}

/// How often in a row the platform may lose a task instance before that counts as a failed try.
pub const PLATFORM_FAULTS: i64 = 3;

/// How long a task instance waits after its `faults`th platform fault: 1 s, 2 s, 4 s … 1 min.
#[must_use]
pub fn backoff(faults: i64) -> TimeDelta {
    TimeDelta::seconds(1 << faults.saturating_sub(1).clamp(0, 6)).min(TimeDelta::minutes(1))
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
    fn what_the_platform_loses_costs_no_try() {
        let lost = |started, platform_fault| {
            let state = if started {
                TaskInstanceState::Running
            } else {
                TaskInstanceState::Queued
            };
            let decided = decide(LostTry {
                state,
                try_number: 1,
                max_tries: 0,
                retries: 0,
                started,
                platform_fault,
            });
            format!("started {started}, platform fault {platform_fault}: {decided:?}")
        };
        insta::assert_snapshot!(
            [lost(false, true), lost(true, true), lost(false, false), lost(true, false)].join("\n"),
            @"
        started false, platform fault true: Requeue
        started true, platform fault true: Again { max_tries: 1 }
        started false, platform fault false: Failed
        started true, platform fault false: Failed
        "
        );
    }

    #[test]
    fn the_platform_is_given_ever_more_time() {
        let waits: Vec<i64> = (0..10)
            .map(|faults| backoff(faults).num_seconds())
            .collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_stuck_task_goes_back_twice() {
        let all: Vec<Stuck> = (0..4).map(decide_stuck).collect();
        assert_eq!(all, [Stuck::Again, Stuck::Again, Stuck::Fail, Stuck::Fail]);
    }
}

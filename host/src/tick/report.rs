//! What a tick did, for people and for the loop around it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

/// Whether the tick ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    #[default]
    Ran,
    /// Another tick holds the lease and does the work.
    LeaseTaken,
}

/// Counts and times of one tick.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    pub outcome: Outcome,
    pub runs_created: u64,
    pub runs_started: u64,
    pub runs_examined: u64,
    pub runs_ended: u64,
    /// Rows of task instances that changed.
    pub task_instances_changed: u64,
    pub task_instances_queued: u64,
    /// Task instances that wait in the triggerer now.
    pub task_instances_deferred: i64,
    /// Watchers of assets that wait in the triggerer.
    pub asset_watchers: i64,
    /// Callbacks of missed deadlines that wait in the triggerer or run there now.
    pub callbacks_in_triggerer: i64,
    /// Runs that were needed by now.
    pub deadlines_missed: u64,
    /// Whether timetables of users' own classes have something to answer.
    pub timetables_asked: bool,
    /// Function calls that were started.
    pub calls_spawned: u64,
    /// Calls whose end was handled.
    pub calls_ended: u64,
    /// Tries that ended without a report.
    pub tries_lost: u64,
    /// Task instances that whoever runs containers lost: they cost no try.
    pub platform_faults: u64,
    /// Callbacks that were sent to a worker.
    pub callbacks_started: u64,
    /// When the next thing is due that no event announces.
    pub next_wake: Option<DateTime<Utc>>,
    /// What concerns one DAG or task only; everything else went on.
    pub problems: Vec<String>,
}

impl Report {
    pub(super) fn taken() -> Self {
        Self {
            outcome: Outcome::LeaseTaken,
            ..Self::default()
        }
    }

    /// Whether the tick changed anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.runs_created
            + self.runs_started
            + self.runs_ended
            + self.task_instances_changed
            + self.task_instances_queued
            + self.calls_spawned
            + self.calls_ended
            + self.tries_lost
            + self.platform_faults
            + self.callbacks_started
            + self.deadlines_missed
            == 0
    }

    /// Adds what a later tick did; its next wake-up counts.
    pub fn add(&mut self, later: &Self) {
        self.outcome = later.outcome;
        self.runs_created += later.runs_created;
        self.runs_started += later.runs_started;
        self.runs_examined += later.runs_examined;
        self.runs_ended += later.runs_ended;
        self.task_instances_changed += later.task_instances_changed;
        self.task_instances_queued += later.task_instances_queued;
        self.calls_spawned += later.calls_spawned;
        self.calls_ended += later.calls_ended;
        self.tries_lost += later.tries_lost;
        self.platform_faults += later.platform_faults;
        self.callbacks_started += later.callbacks_started;
        self.task_instances_deferred = later.task_instances_deferred;
        self.asset_watchers = later.asset_watchers;
        self.callbacks_in_triggerer = later.callbacks_in_triggerer;
        self.deadlines_missed += later.deadlines_missed;
        self.timetables_asked = later.timetables_asked;
        self.next_wake = later.next_wake;
        self.problems.extend(later.problems.iter().cloned());
        self.problems.dedup();
    }

    /// Something is due at `at` that no event announces.
    pub(super) fn wake_at(&mut self, at: DateTime<Utc>) {
        self.next_wake = Some(self.next_wake.map_or(at, |wake| wake.min(at)));
    }

    pub(super) fn problem(&mut self, error: &dyn std::error::Error) {
        let text = told(error);
        tracing::warn!(problem = text, "left out of this tick");
        self.problems.push(text);
    }
}

/// An error with its causes, in one line where they are.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outcome == Outcome::LeaseTaken {
            return f.write_str("another tick is at work");
        }
        let counts = [
            (self.runs_created, "run created", "runs created"),
            (self.runs_started, "run started", "runs started"),
            (self.calls_ended, "call ended", "calls ended"),
            (self.tries_lost, "try lost", "tries lost"),
            (self.platform_faults, "platform fault", "platform faults"),
            (
                self.calls_spawned,
                "task instance sent out",
                "task instances sent out",
            ),
            (self.runs_ended, "run ended", "runs ended"),
            (self.deadlines_missed, "deadline missed", "deadlines missed"),
            (
                self.callbacks_started,
                "callback started",
                "callbacks started",
            ),
        ];
        let said: Vec<String> = counts
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        if said.is_empty() {
            f.write_str("nothing was due")
        } else {
            f.write_str(&said.join(", "))
        }
    }
}

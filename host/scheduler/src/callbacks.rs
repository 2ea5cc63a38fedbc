//! Which callbacks the scheduler itself owes: those of a DAG whose run ended, and those of a task whose try was lost
//! before its worker could run them. All others run in the task's own process.

use std::collections::{HashMap, HashSet};

use model::{SerializedDag, SerializedTask, TaskInstance, TaskInstanceState};
use uuid::Uuid;

use crate::plan::{Decision, FailedReason, Lost, RunPlan, Verdict};
use crate::snapshot::RunSnapshot;

/// `on_success_callback` or `on_failure_callback` of a DAG. `airflow: DagRun.produce_dag_callback`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagCallback {
    pub is_failure: bool,
    /// `context["reason"]`
    pub reason: &'static str,
    pub about: About,
}

/// The task instance that the callback's context is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The one in this state that ended last, once the plan is applied.
    LastEnded(TaskInstanceState),
    This(Uuid),
    Nothing,
}

/// The callback that the end of the run asks for, if the plan ends it and the DAG has one.
/// `airflow: DagRun.update_state, SchedulerJobRunner._schedule_dag_run`
#[must_use]
pub fn of_run(dag: &SerializedDag, snapshot: &RunSnapshot, plan: &RunPlan) -> Option<DagCallback> {
    match plan.verdict {
        Verdict::Running => None,
        Verdict::Success => dag.has_on_success_callback.then_some(DagCallback {
            is_failure: false,
            reason: "success",
            about: About::LastEnded(TaskInstanceState::Success),
        }),
        Verdict::Failed(reason) => dag.has_on_failure_callback.then(|| DagCallback {
            is_failure: true,
            reason: reason.as_str(),
            about: match reason {
                FailedReason::TaskFailure => About::LastEnded(TaskInstanceState::Failed),
                FailedReason::AllTasksDeadlocked => blocking(dag, snapshot, plan),
                FailedReason::TimedOut => last_started(snapshot),
            },
        }),
    }
}

/// The first unfinished task instance that has something finished directly above it.
fn blocking(dag: &SerializedDag, snapshot: &RunSnapshot, plan: &RunPlan) -> About {
    let mut changed: HashMap<Uuid, TaskInstanceState> = HashMap::new();
    for decision in &plan.decisions {
        match decision {
            Decision::Force { id, to, .. } | Decision::Mark { id, to, .. } => {
                changed.insert(*id, *to)
            }
            Decision::SucceedEmpty { id } => changed.insert(*id, TaskInstanceState::Success),
            Decision::Schedule { .. }
            | Decision::Restore { .. }
            | Decision::Expand { .. }
            | Decision::Insert { .. }
            | Decision::Delete { .. } => None,
        };
    }
    let is_finished = |row: &TaskInstance| {
        let state = changed.get(&row.id).copied().or(row.state);
        state.is_some_and(TaskInstanceState::is_finished)
    };
    let (finished, unfinished): (Vec<_>, Vec<_>) = snapshot
        .task_instances
        .iter()
        .partition(|row| is_finished(row));
    let finished: HashSet<&str> = finished.iter().map(|row| row.task_id.as_str()).collect();
    unfinished
        .iter()
        .find(|row| {
            dag.task(&row.task_id).is_some_and(|task| {
                task.upstream
                    .iter()
                    .any(|&upstream| finished.contains(dag.tasks[upstream].task_id.as_str()))
            })
        })
        .map_or(About::Nothing, |row| About::This(row.id))
}

/// The unfinished task instance that started last.
fn last_started(snapshot: &RunSnapshot) -> About {
    let mut last: Option<&TaskInstance> = None;
    for row in &snapshot.task_instances {
        let is_finished = row.state.is_some_and(TaskInstanceState::is_finished);
        if !is_finished && last.is_none_or(|found| row.start_date > found.start_date) {
            last = Some(row);
        }
    }
    last.map_or(About::Nothing, |row| About::This(row.id))
}

/// What is owed for a lost try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskCallbacks {
    /// `on_failure_callback` (state failed) or `on_retry_callback` (state up_for_retry).
    pub callback: Option<TaskInstanceState>,
    /// An e-mail about the same.
    pub email: Option<TaskInstanceState>,
}

/// Callbacks and e-mails for a try whose worker can't run them any more. A try that is repeated for free, or that a
/// person cleared, has not failed. `airflow: SchedulerJobRunner.process_executor_events`
#[must_use]
pub fn of_lost(task: &SerializedTask, decision: &Lost) -> TaskCallbacks {
    let (state, has_callback, wants_email) = match decision {
        Lost::UpForRetry | Lost::Again { .. } => (
            TaskInstanceState::UpForRetry,
            task.has_on_retry_callback,
            task.email_on_retry,
        ),
        Lost::Failed => (
            TaskInstanceState::Failed,
            task.has_on_failure_callback,
            task.email_on_failure,
        ),
        Lost::Requeue | Lost::Cleared { .. } => return TaskCallbacks::default(),
    };
    TaskCallbacks {
        callback: has_callback.then_some(state),
        email: (task.has_email && wants_email).then_some(state),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn dag(task: &serde_json::Value) -> SerializedDag {
        let mut task = task.clone();
        task["task_id"] = json!("work");
        task["task_type"] = json!("PythonOperator");
        task["_task_module"] = json!("somewhere");
        SerializedDag::parse(&json!({
            "__version": 3,
            "dag": {
                "dag_id": "d", "fileloc": "/d.py", "timezone": "UTC",
                "timetable": {"__type": "airflow.timetables.simple.NullTimetable", "__var": {}},
                "tasks": [{"__type": "operator", "__var": task}],
                "task_group": {"_group_id": null, "children": {"work": ["operator", "work"]}},
            },
        }))
        .unwrap()
    }

    fn owed(task: &serde_json::Value, decision: &Lost) -> TaskCallbacks {
        of_lost(dag(task).task("work").unwrap(), decision)
    }

    #[test]
    fn a_lost_try_owes_the_callback_of_what_becomes_of_it() {
        let both = json!({"has_on_failure_callback": true, "has_on_retry_callback": true});
        let callback = |decision| owed(&both, &decision).callback;
        assert_eq!(callback(Lost::Failed), Some(TaskInstanceState::Failed));
        assert_eq!(
            callback(Lost::UpForRetry),
            Some(TaskInstanceState::UpForRetry)
        );
        assert_eq!(callback(Lost::Requeue), None);
        assert_eq!(callback(Lost::Cleared { max_tries: 1 }), None);
        let failure = json!({"has_on_failure_callback": true});
        assert_eq!(owed(&failure, &Lost::UpForRetry), TaskCallbacks::default());
    }

    #[test]
    fn mail_goes_out_as_the_task_says() {
        let asks = json!({"email": ["a@example.com"], "email_on_retry": false});
        assert_eq!(
            owed(&asks, &Lost::Failed).email,
            Some(TaskInstanceState::Failed)
        );
        assert_eq!(owed(&asks, &Lost::UpForRetry).email, None);
        assert_eq!(owed(&json!({}), &Lost::Failed).email, None);
    }
}

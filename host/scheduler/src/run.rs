//! Decisions about the task instances of one running run.

mod board;
mod dependencies;
mod identity;
mod pass;
mod structure;
mod trigger_rule;
mod upstream;
mod verdict;

use chrono::{DateTime, Utc};
use model::{SerializedDag, TaskInstanceState};
use uuid::Uuid;

use self::board::Board;
use self::dependencies::{Delays, Finding};
use self::pass::{Passes, is_candidate};
use crate::mapping;
use crate::plan::{Decision, FailedReason, NextLook, RunPlan, Verdict, Waiting};
use crate::snapshot::RunSnapshot;

/// Everything that can happen to the run's task instances now, to a fixpoint, and what becomes of the run.
/// `airflow: DagRun.update_state, DagRun.schedule_tis`
#[must_use]
pub fn plan(dag: &SerializedDag, snapshot: &RunSnapshot, now: DateTime<Utc>) -> RunPlan {
    if timeout(dag, snapshot).is_some_and(|timeout| timeout <= now) {
        return time_out(snapshot);
    }
    if snapshot.run.logical_date.is_some_and(|date| date > now) {
        return RunPlan {
            decisions: Vec::new(),
            waiting: Vec::new(),
            verdict: Verdict::Running,
        };
    }
    let (board, foreign) = Board::new(dag, snapshot);
    let mut passes = Passes::new(board, snapshot, now);
    for row in foreign {
        if row.state != Some(TaskInstanceState::Removed) {
            passes.decisions.push(Decision::Mark {
                id: row.id,
                from: row.state,
                to: TaskInstanceState::Removed,
            });
        }
    }
    if snapshot.dag_changed {
        passes.verify_integrity(snapshot);
    }
    passes.board.end_pass();
    passes.run();
    let verdict = verdict::verdict(&mut passes);
    RunPlan {
        waiting: waiting(&passes),
        decisions: passes.decisions,
        verdict,
    }
}

/// When the run must be looked at again though nothing else happens: retries, sensors, its timeout, a logical
/// date that has yet to come, a task of the run before that it waits for.
#[must_use]
pub fn next_look(
    dag: &SerializedDag,
    snapshot: &RunSnapshot,
    plan: &RunPlan,
    now: DateTime<Utc>,
) -> NextLook {
    if plan.verdict != Verdict::Running {
        return NextLook::default();
    }
    let delays = plan
        .waiting
        .iter()
        .filter_map(|(_, waiting)| match waiting {
            Waiting::RetryDelay { until } | Waiting::Reschedule { until } => Some(*until),
            Waiting::Upstream { .. }
            | Waiting::PreviousRun
            | Waiting::MappedLength
            | Waiting::InState { .. } => None,
        });
    let begins = snapshot.run.logical_date.filter(|&date| date > now);
    let waits_for_run = plan
        .waiting
        .iter()
        .any(|(_, waiting)| matches!(waiting, Waiting::PreviousRun));
    NextLook {
        at: delays.chain(timeout(dag, snapshot)).chain(begins).min(),
        after_run_id: snapshot
            .previous_run
            .as_ref()
            .filter(|_| waits_for_run)
            .map(|previous| previous.run_id.clone()),
        is_held: false,
    }
}

fn timeout(dag: &SerializedDag, snapshot: &RunSnapshot) -> Option<DateTime<Utc>> {
    snapshot
        .run
        .start_date?
        .checked_add_signed(dag.dagrun_timeout?)
}

/// All that is unfinished is skipped, also what runs. `airflow: SchedulerJobRunner._schedule_dag_run`
fn time_out(snapshot: &RunSnapshot) -> RunPlan {
    let mut decisions: Vec<(&str, i32, Decision)> = snapshot
        .task_instances
        .iter()
        .filter(|row| row.state.is_none_or(|state| !state.is_finished()))
        .map(|row| {
            let decision = Decision::Mark {
                id: row.id,
                from: row.state,
                to: TaskInstanceState::Skipped,
            };
            (row.task_id.as_str(), row.map_index, decision)
        })
        .collect();
    decisions.sort_by_key(|(task_id, map_index, _)| (*task_id, *map_index));
    RunPlan {
        decisions: decisions
            .into_iter()
            .map(|(.., decision)| decision)
            .collect(),
        waiting: Vec::new(),
        verdict: Verdict::Failed(FailedReason::TimedOut),
    }
}

/// Why each unfinished task instance stays where the plan leaves it.
fn waiting(passes: &Passes<'_>) -> Vec<(Uuid, Waiting)> {
    let board = &passes.board;
    let mut counts: Vec<Option<mapping::Count>> = vec![None; board.dag.tasks.len()];
    let mut reasons: Vec<(&str, i32, Uuid, Waiting)> = Vec::new();
    for (_, piece) in board.live() {
        let task = &board.dag.tasks[piece.task];
        let reason = match piece.state {
            Some(state) if state.is_finished() => continue,
            Some(state) if !is_candidate(Some(state)) => Waiting::InState { state },
            Some(_) | None => {
                let count = *counts[piece.task]
                    .get_or_insert_with(|| mapping::count(board.dag, task, board));
                let delays = Delays::Respected;
                match passes.dependencies.find(board, piece, count, delays) {
                    Finding::Waits(waiting) => waiting,
                    // At the fixpoint there is neither; the next plan would act upon it.
                    Finding::Ready | Finding::Force(_) => continue,
                }
            }
        };
        reasons.push((task.task_id.as_str(), piece.map_index, piece.id, reason));
    }
    reasons.sort_by_key(|(task_id, map_index, ..)| (*task_id, *map_index));
    reasons
        .into_iter()
        .map(|(_, _, id, reason)| (id, reason))
        .collect()
}

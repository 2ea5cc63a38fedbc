//! What becomes of a run once nothing moves. `airflow: DagRun.update_state`

use model::{SerializedDag, SerializedTask, TaskInstanceState};

use super::board::Board;
use super::pass::{Movement, Passes};
use crate::plan::{FailedReason, Verdict};

/// Looks for a deadlock only if Airflow would; that look may itself force states, so it comes in a loop.
pub(super) fn verdict(passes: &mut Passes<'_>) -> Verdict {
    while may_be_deadlocked(&passes.board) {
        match passes.look_for_movement() {
            Movement::Possible => return Verdict::Running,
            Movement::Forced => {}
            Movement::None => return Verdict::Failed(FailedReason::AllTasksDeadlocked),
        }
    }
    if unfinished(&passes.board).next().is_some() {
        return Verdict::Running;
    }
    if any_leaf_failed(&passes.board) {
        Verdict::Failed(FailedReason::TaskFailure)
    } else {
        Verdict::Success
    }
}

fn unfinished<'b>(
    board: &'b Board<'_>,
) -> impl Iterator<Item = (&'b SerializedTask, Option<TaskInstanceState>)> {
    board
        .live()
        .filter(|(_, piece)| piece.state.is_none_or(|state| !state.is_finished()))
        .map(|(_, piece)| (&board.dag.tasks[piece.task], piece.state))
}

/// `airflow: _UnfinishedStates.should_schedule`
fn may_be_deadlocked(board: &Board<'_>) -> bool {
    let mut any = false;
    for (task, state) in unfinished(board) {
        any = true;
        let waits_outside = matches!(
            state,
            Some(TaskInstanceState::Deferred | TaskInstanceState::AwaitingInput)
        );
        if task.depends_on_past
            || task.max_active_tis_per_dag.is_some()
            || task.max_active_tis_per_dagrun.is_some()
            || waits_outside
        {
            return false;
        }
    }
    any
}

/// `airflow: DagRun._tis_for_dagrun_state`
fn any_leaf_failed(board: &Board<'_>) -> bool {
    let dag = board.dag;
    let mut leaf: Vec<bool> = dag
        .tasks
        .iter()
        .map(|task| is_effective_leaf(dag, task))
        .collect();
    // A DAG of teardowns alone.
    if !leaf.contains(&true) {
        leaf = dag
            .tasks
            .iter()
            .map(|task| task.downstream.is_empty())
            .collect();
    }
    board.live().any(|(_, piece)| {
        leaf[piece.task]
            && matches!(
                piece.state,
                Some(TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
            )
    })
}

/// A teardown counts only when it says so, and hides nothing above it.
fn is_effective_leaf(dag: &SerializedDag, task: &SerializedTask) -> bool {
    let counts = |task: &SerializedTask| !task.is_teardown || task.on_failure_fail_dagrun;
    counts(task)
        && !task
            .downstream
            .iter()
            .any(|&downstream| counts(&dag.tasks[downstream]))
}

//! The task instances of the run while a plan is made: as the snapshot has them, then as the plan leaves them.
//!
//! Airflow looks at all task instances of a run in passes, and what one pass changes is seen by the next.
//! The board keeps both: what is now, and what the current pass may see of it.

use std::collections::{BTreeMap, HashMap};

use model::{SerializedDag, TaskIndex, TaskInstance, TaskInstanceState};
use uuid::Uuid;

use super::trigger_rule::Upstream;
use crate::mapping::Lengths;
use crate::snapshot::RunSnapshot;

/// A task instance on the board.
#[derive(Debug, Clone)]
pub(super) struct Piece<'a> {
    pub(super) id: Uuid,
    pub(super) task: TaskIndex,
    pub(super) map_index: i32,
    pub(super) state: Option<TaskInstanceState>,
    /// What the current pass sees.
    visible: Option<TaskInstanceState>,
    pub(super) dag_version_id: Option<Uuid>,
    /// The row, unless the plan made it.
    pub(super) row: Option<&'a TaskInstance>,
    gone: bool,
}

/// Position of a piece.
pub(super) type PieceIndex = usize;

pub(super) struct Board<'a> {
    pub(super) dag: &'a SerializedDag,
    snapshot: &'a RunSnapshot,
    pub(super) pieces: Vec<Piece<'a>>,
    /// Pieces of each task by map index.
    by_task: Vec<BTreeMap<i32, PieceIndex>>,
    /// Of each task: how many rows, and the visible finished ones by state.
    sums: Vec<Upstream>,
    /// Changed in this pass, not visible yet.
    pending: Vec<PieceIndex>,
    /// Tasks with a change since the last pass, each once.
    touched: Vec<TaskIndex>,
    is_touched: Vec<bool>,
}

impl<'a> Board<'a> {
    /// Also returns the rows whose task the DAG does not have.
    pub(super) fn new(
        dag: &'a SerializedDag,
        snapshot: &'a RunSnapshot,
    ) -> (Self, Vec<&'a TaskInstance>) {
        let mut board = Self {
            dag,
            snapshot,
            pieces: Vec::with_capacity(snapshot.task_instances.len()),
            by_task: vec![BTreeMap::new(); dag.tasks.len()],
            sums: vec![Upstream::default(); dag.tasks.len()],
            pending: Vec::new(),
            touched: Vec::new(),
            is_touched: vec![false; dag.tasks.len()],
        };
        let mut foreign = Vec::new();
        let mut rows: Vec<&TaskInstance> = snapshot.task_instances.iter().collect();
        // Airflow's order, and ours whatever order the rows came in.
        rows.sort_unstable_by(|a, b| {
            (&a.task_id, a.map_index, a.id).cmp(&(&b.task_id, b.map_index, b.id))
        });
        for row in rows {
            match dag.task_index(&row.task_id) {
                None => foreign.push(row),
                Some(task) => {
                    board.add(Piece {
                        id: row.id,
                        task,
                        map_index: row.map_index,
                        state: row.state,
                        visible: row.state,
                        dag_version_id: row.dag_version_id,
                        row: Some(row),
                        gone: false,
                    });
                }
            }
        }
        board.take_touched();
        (board, foreign)
    }

    fn add(&mut self, piece: Piece<'a>) -> PieceIndex {
        let index = self.pieces.len();
        self.by_task[piece.task].insert(piece.map_index, index);
        self.touch(piece.task);
        self.sums[piece.task].total += 1;
        let is_setup = self.dag.tasks[piece.task].is_setup;
        self.sums[piece.task].setups += i64::from(is_setup);
        count(&mut self.sums[piece.task], piece.visible, is_setup, 1);
        self.pieces.push(piece);
        index
    }

    /// A task instance that the plan makes: no state.
    pub(super) fn insert(
        &mut self,
        id: Uuid,
        task: TaskIndex,
        map_index: i32,
        dag_version_id: Option<Uuid>,
    ) -> PieceIndex {
        self.add(Piece {
            id,
            task,
            map_index,
            state: None,
            visible: None,
            dag_version_id,
            row: None,
            gone: false,
        })
    }

    /// The unexpanded task instance becomes the first mapped one.
    pub(super) fn become_first(&mut self, piece: PieceIndex) {
        let Piece {
            task, map_index, ..
        } = self.pieces[piece];
        self.by_task[task].remove(&map_index);
        self.by_task[task].insert(0, piece);
        self.pieces[piece].map_index = 0;
        self.touch(task);
    }

    pub(super) fn delete(&mut self, piece: PieceIndex) {
        let Piece {
            task,
            map_index,
            visible,
            ..
        } = self.pieces[piece];
        self.by_task[task].remove(&map_index);
        self.pieces[piece].gone = true;
        let is_setup = self.dag.tasks[task].is_setup;
        self.sums[task].total -= 1;
        self.sums[task].setups -= i64::from(is_setup);
        count(&mut self.sums[task], visible, is_setup, -1);
        self.touch(task);
    }

    pub(super) fn set_state(&mut self, piece: PieceIndex, state: Option<TaskInstanceState>) {
        self.pieces[piece].state = state;
        self.pending.push(piece);
        self.touch(self.pieces[piece].task);
    }

    fn touch(&mut self, task: TaskIndex) {
        if !self.is_touched[task] {
            self.is_touched[task] = true;
            self.touched.push(task);
        }
    }

    /// Ends a pass: its changes can be seen. Returns the tasks that they are about.
    pub(super) fn end_pass(&mut self) -> Vec<TaskIndex> {
        for piece in std::mem::take(&mut self.pending) {
            let Piece {
                task,
                state,
                visible,
                gone,
                ..
            } = self.pieces[piece];
            if !gone {
                let is_setup = self.dag.tasks[task].is_setup;
                count(&mut self.sums[task], visible, is_setup, -1);
                count(&mut self.sums[task], state, is_setup, 1);
            }
            self.pieces[piece].visible = state;
        }
        self.take_touched()
    }

    fn take_touched(&mut self) -> Vec<TaskIndex> {
        for &task in &self.touched {
            self.is_touched[task] = false;
        }
        std::mem::take(&mut self.touched)
    }

    /// Pieces of a task in the order of their map indexes.
    pub(super) fn of_task(&self, task: TaskIndex) -> impl Iterator<Item = PieceIndex> {
        self.by_task[task].values().copied()
    }

    pub(super) fn at(&self, task: TaskIndex, map_index: i32) -> Option<PieceIndex> {
        self.by_task[task].get(&map_index).copied()
    }

    pub(super) fn last_map_index(&self, task: TaskIndex) -> Option<i32> {
        self.by_task[task].keys().next_back().copied()
    }

    pub(super) fn has_rows(&self, task: TaskIndex) -> bool {
        !self.by_task[task].is_empty()
    }

    /// All rows of a task, as the current pass sees them.
    pub(super) fn sum(&self, task: TaskIndex) -> &Upstream {
        &self.sums[task]
    }

    /// The rows of a task with map indexes in the range, and the unexpanded one.
    pub(super) fn sum_of(&self, task: TaskIndex, indexes: std::ops::Range<i32>) -> Upstream {
        let mut sum = Upstream::default();
        let is_setup = self.dag.tasks[task].is_setup;
        let rows = &self.by_task[task];
        let unexpanded = rows.range(..0);
        let wanted = rows.range(indexes.start.max(0)..indexes.end.max(0));
        for (_, &piece) in unexpanded.chain(wanted) {
            sum.total += 1;
            sum.setups += i64::from(is_setup);
            count(&mut sum, self.pieces[piece].visible, is_setup, 1);
        }
        sum
    }

    /// The state of the unexpanded task instance, if there is one, also when it was set in this pass: Airflow
    /// asks the database for this one.
    pub(super) fn unexpanded_state(&self, task: TaskIndex) -> Option<Option<TaskInstanceState>> {
        self.at(task, -1).map(|piece| self.pieces[piece].state)
    }

    /// Every task instance that still exists.
    pub(super) fn live(&self) -> impl Iterator<Item = (PieceIndex, &Piece<'a>)> {
        self.pieces
            .iter()
            .enumerate()
            .filter(|(_, piece)| !piece.gone)
    }
}

impl Lengths for Board<'_> {
    fn length(&self, task_id: &str) -> Option<i64> {
        let task = self.dag.task_index(task_id)?;
        if !self.dag.tasks[task].is_mapped() {
            return self.snapshot.mapped_lengths.get(task_id).copied();
        }
        let sum = &self.sums[task];
        (sum.done() >= sum.total).then(|| known(&self.snapshot.return_values, task_id))
    }
}

fn known(counts: &HashMap<String, i64>, task_id: &str) -> i64 {
    counts.get(task_id).copied().unwrap_or(0)
}

fn count(sum: &mut Upstream, state: Option<TaskInstanceState>, is_setup: bool, by: i64) {
    match state {
        Some(TaskInstanceState::Success) => {
            sum.success += by;
            sum.success_setups += if is_setup { by } else { 0 };
        }
        Some(TaskInstanceState::Skipped) => {
            sum.skipped += by;
            sum.skipped_setups += if is_setup { by } else { 0 };
        }
        Some(TaskInstanceState::Failed) => sum.failed += by,
        Some(TaskInstanceState::UpstreamFailed) => sum.upstream_failed += by,
        Some(TaskInstanceState::Removed) => sum.removed += by,
        Some(
            TaskInstanceState::Scheduled
            | TaskInstanceState::Queued
            | TaskInstanceState::Running
            | TaskInstanceState::Restarting
            | TaskInstanceState::UpForRetry
            | TaskInstanceState::UpForReschedule
            | TaskInstanceState::Deferred
            | TaskInstanceState::AwaitingInput,
        )
        | None => {}
    }
}

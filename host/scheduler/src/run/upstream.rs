//! Which upstream task instances matter to a task instance. Outside of mapped task groups all of an upstream
//! task do; inside, those of the same iteration.

use std::ops::Range;

use model::{GroupIndex, SerializedDag, SerializedTask, TaskIndex, TriggerRule};

use super::board::{Board, Piece};
use super::structure::Structure;
use super::trigger_rule::Upstream;
use crate::mapping;

/// Sums up task instances of other tasks, for one task instance.
pub(super) struct Relevant<'a, 'b> {
    board: &'b Board<'a>,
    task: &'a SerializedTask,
    map_index: i32,
    /// The closest mapped group, with what is known about it.
    mapped: Option<Mapped<'b>>,
}

struct Mapped<'b> {
    /// How many task instances the task is expanded to, if that is known and not 0.
    count: Option<i64>,
    /// Not expanded yet, with a rule that a part of the upstream may satisfy: then all of it counts, but for
    /// what it is mapped over.
    all_but: Option<&'b [TaskIndex]>,
}

/// Map indexes of another task.
enum Indexes {
    All,
    Only(Range<i32>),
}

impl<'a, 'b> Relevant<'a, 'b> {
    pub(super) fn new(
        board: &'b Board<'a>,
        structure: &'b Structure,
        piece: &Piece<'_>,
        count: mapping::Count,
    ) -> Self {
        let task = &board.dag.tasks[piece.task];
        let in_mapped_group = board.dag.mapped_groups(task).next().is_some();
        let fast = matches!(
            task.trigger_rule,
            TriggerRule::OneSuccess
                | TriggerRule::OneFailed
                | TriggerRule::OneDone
                | TriggerRule::NoneFailedMinOneSuccess
        );
        Self {
            board,
            task,
            map_index: piece.map_index,
            mapped: in_mapped_group.then(|| Mapped {
                count: count.known().filter(|&count| count != 0),
                all_but: (piece.map_index < 0 && fast)
                    .then(|| structure.expansion_dependencies[piece.task].as_slice()),
            }),
        }
    }

    /// The states of the relevant task instances of these tasks. Airflow counts tasks when none of them is
    /// mapped, else rows.
    pub(super) fn sum(&self, tasks: &[TaskIndex]) -> Upstream {
        let dag = self.board.dag;
        let counts_rows = tasks.iter().any(|&task| dag.tasks[task].needs_expansion);
        let mut sum = Upstream::default();
        for &task in tasks {
            match self.indexes(task) {
                Indexes::All => sum.add(self.board.sum(task)),
                Indexes::Only(range) => sum.add(&self.board.sum_of(task, range)),
            }
        }
        if !counts_rows {
            let setups = tasks.iter().filter(|&&task| dag.tasks[task].is_setup);
            sum.total = size(tasks.len());
            sum.setups = size(setups.count());
        }
        sum
    }

    /// `airflow: _get_relevant_upstream_map_indexes, _get_relevant_map_indexes`
    fn indexes(&self, other: TaskIndex) -> Indexes {
        let Some(mapped) = &self.mapped else {
            return Indexes::All;
        };
        if mapped.all_but.is_some_and(|but| !but.contains(&other)) {
            return Indexes::All;
        }
        let dag = self.board.dag;
        let other = &dag.tasks[other];
        let (Some(count), Some(group)) = (mapped.count, common_mapped_group(dag, self.task, other))
        else {
            return Indexes::All;
        };
        let Some(iterations) = mapping::group_count(dag, group, self.board) else {
            return Indexes::All;
        };
        // Python's floor division; the count is not negative.
        let iteration = (i64::from(self.map_index) * iterations).div_euclid(count);
        let further = if is_further_mapped(dag, other, group) {
            count / iterations.max(1)
        } else {
            1
        };
        let first = iteration.saturating_mul(further);
        Indexes::Only(index(first)..index(first.saturating_add(further)))
    }
}

/// The innermost mapped group that both stand in. `airflow: _find_common_ancestor_mapped_group`
fn common_mapped_group(
    dag: &SerializedDag,
    task: &SerializedTask,
    other: &SerializedTask,
) -> Option<GroupIndex> {
    dag.mapped_groups(other)
        .find(|group| dag.mapped_groups(task).any(|mine| mine == *group))
}

/// `airflow: _is_further_mapped_inside`
fn is_further_mapped(dag: &SerializedDag, task: &SerializedTask, container: GroupIndex) -> bool {
    task.is_mapped() || dag.mapped_groups(task).next() != Some(container)
}

fn index(index: i64) -> i32 {
    i32::try_from(index).unwrap_or(if index < 0 { i32::MIN } else { i32::MAX })
}

fn size(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

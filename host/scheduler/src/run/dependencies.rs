//! Whether a task instance may run now: Airflow's dependencies, all of them, each time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::{SerializedTask, TaskIndex, TaskInstanceState, TriggerRule};
use serde_json::Value;

use super::board::{Board, Piece};
use super::structure::Structure;
use super::trigger_rule::{self, Demand};
use super::upstream::Relevant;
use crate::mapping;
use crate::plan::Waiting;
use crate::retry::next_retry_at;
use crate::snapshot::RunSnapshot;

/// What the dependencies say about one task instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    Ready,
    /// They force a state upon it.
    Force(TaskInstanceState),
    Waits(Waiting),
}

/// Whether delays count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delays {
    Respected,
    /// As if every retry and reschedule were due: to find out whether the run is stuck.
    Ignored,
}

/// The facts beside the board, indexed.
pub(super) struct Dependencies<'a> {
    snapshot: &'a RunSnapshot,
    now: DateTime<Utc>,
    pub(super) structure: Structure,
    skips: HashMap<(&'a str, i32), &'a Value>,
    /// Per task of the previous run: whether all its task instances succeeded or were skipped.
    previous: HashMap<&'a str, bool>,
}

impl<'a> Dependencies<'a> {
    pub(super) fn new(board: &Board<'a>, snapshot: &'a RunSnapshot, now: DateTime<Utc>) -> Self {
        let mut previous: HashMap<&str, bool> = HashMap::new();
        for (task_id, _, state) in snapshot
            .previous_run
            .iter()
            .flat_map(|run| &run.task_instances)
        {
            let successful = matches!(
                state,
                Some(TaskInstanceState::Success | TaskInstanceState::Skipped)
            );
            *previous.entry(task_id).or_insert(true) &= successful;
        }
        let skips = snapshot
            .skips
            .iter()
            .map(|skip| ((skip.task_id.as_str(), skip.map_index), &skip.value))
            .collect();
        Self {
            snapshot,
            now,
            structure: Structure::new(board.dag),
            skips,
            previous,
        }
    }

    /// `count` is how many task instances the task is expanded to, which is the same for all of them.
    pub(super) fn find(
        &self,
        board: &Board<'a>,
        piece: &Piece<'a>,
        count: mapping::Count,
        delays: Delays,
    ) -> Finding {
        let task = &board.dag.tasks[piece.task];
        let (trigger_force, trigger_waits) = self.trigger_rule(board, piece, task, count);
        // Airflow evaluates its dependencies in no particular order; where two force different states, a
        // skip that a branch recorded comes first, for it is what happens when the branch itself runs.
        let mut force = trigger_force;
        if self.was_skipped(board, piece, task) {
            force = Some(TaskInstanceState::Skipped);
        }
        let mapped_over = self.mapped_over(board, piece, task, force.or(piece.state));
        if let Some(Some(state)) = mapped_over {
            force = Some(state);
        }
        if let Some(state) = force.filter(|&state| piece.state != Some(state)) {
            return Finding::Force(state);
        }
        let delayed = match delays {
            Delays::Respected => self
                .retry_delay(board, piece, task)
                .or_else(|| self.reschedule(piece, task)),
            Delays::Ignored => None,
        };
        let waits = trigger_waits
            .or_else(|| self.previous_run(board, task))
            .or(mapped_over.map(|_| Waiting::MappedLength))
            .or(delayed);
        match (waits, force) {
            (Some(waiting), _) => Finding::Waits(waiting),
            // Already in the state that is forced upon it: not to be run.
            (None, Some(state)) => Finding::Waits(Waiting::InState { state }),
            (None, None) => Finding::Ready,
        }
    }

    /// `airflow: TriggerRuleDep`
    fn trigger_rule(
        &self,
        board: &Board<'a>,
        piece: &Piece<'a>,
        task: &SerializedTask,
        count: mapping::Count,
    ) -> (Option<TaskInstanceState>, Option<Waiting>) {
        if task.upstream.is_empty() || task.trigger_rule == TriggerRule::Always {
            return (None, None);
        }
        let relevant = Relevant::new(board, &self.structure, piece, count);
        let waits = |tasks: &[TaskIndex]| {
            let sum = relevant.sum(tasks);
            Waiting::Upstream {
                rule: task.trigger_rule.to_string(),
                done: usize::try_from(sum.done()).unwrap_or(0),
                total: usize::try_from(sum.total).unwrap_or(0),
            }
        };
        let setups = &self.structure.indirect_setups[piece.task];
        let mut setup_waits = None;
        let mut setup_force = None;
        if !setups.is_empty() {
            let Demand { force, passes } =
                trigger_rule::setup_demand(&relevant.sum(setups), piece.map_index);
            let changes = force.is_some() && force != piece.state;
            if !passes {
                if changes {
                    return (force, Some(waits(setups)));
                }
                setup_waits = Some(waits(setups));
            }
            setup_force = force;
        }
        let sum = relevant.sum(&task.upstream);
        let Demand { force, passes } =
            trigger_rule::demand(task.trigger_rule, &sum, piece.map_index);
        let mut waiting = (!passes).then(|| waits(&task.upstream)).or(setup_waits);
        if waiting.is_none() && task.is_teardown {
            let scope = &self.structure.teardown_scope[piece.task];
            let inside = relevant.sum(scope);
            if inside.done() < inside.total {
                waiting = Some(waits(scope));
            }
        }
        (force.or(setup_force), waiting)
    }

    /// `airflow: NotPreviouslySkippedDep`
    fn was_skipped(&self, board: &Board<'a>, piece: &Piece<'a>, task: &SerializedTask) -> bool {
        if self.skips.is_empty() {
            return false;
        }
        task.upstream.iter().any(|&parent| {
            let finished = board.sum(parent).done() > 0;
            let parent = &board.dag.tasks[parent];
            if !parent.can_skip_downstream || !finished {
                return false;
            }
            // A parent that is not mapped wrote its XCom with -1, also inside of a mapped group.
            let map_index = if parent.is_mapped() {
                piece.map_index
            } else {
                -1
            };
            let Some(value) = self.skips.get(&(parent.task_id.as_str(), map_index)) else {
                return false;
            };
            match (value.get("followed"), value.get("skipped")) {
                (Some(followed), _) if !names(followed, &task.task_id) => true,
                (_, Some(skipped)) => names(skipped, &task.task_id),
                (_, None) => false,
            }
        })
    }

    /// `None`: nothing wrong with what it is mapped over. `Some(state)`: it must not run, and `state` is
    /// forced upon it unless it failed already. `airflow: MappedTaskUpstreamDep`
    fn mapped_over(
        &self,
        board: &Board<'a>,
        piece: &Piece<'a>,
        task: &SerializedTask,
        state: Option<TaskInstanceState>,
    ) -> Option<Option<TaskInstanceState>> {
        let input = match &task.expand_input {
            Some(input) => Some(input),
            None => board
                .dag
                .mapped_groups(&board.dag.tasks[piece.task])
                .next()
                .and_then(|group| board.dag.groups[group].expand_input.as_ref()),
        };
        let finished = input?
            .references()
            .into_iter()
            .filter_map(|id| board.dag.task_index(id))
            .filter_map(|task| board.unexpanded_state(task).flatten())
            .filter(|state| state.is_finished());
        let states: Vec<TaskInstanceState> = finished.collect();
        if states
            .iter()
            .all(|&state| state == TaskInstanceState::Success)
        {
            return None;
        }
        let failed = states.iter().any(|state| {
            matches!(
                state,
                TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed
            )
        });
        let skipped = states.contains(&TaskInstanceState::Skipped);
        let stays = matches!(
            state,
            Some(TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
        );
        Some(if stays {
            None
        } else if failed {
            Some(TaskInstanceState::UpstreamFailed)
        } else {
            skipped.then_some(TaskInstanceState::Skipped)
        })
    }

    /// `airflow: PrevDagrunDep`
    fn previous_run(&self, board: &Board<'a>, task: &SerializedTask) -> Option<Waiting> {
        if !task.depends_on_past {
            return None;
        }
        let first_of_backfill = self.snapshot.run.backfill_id.is_some()
            && self.snapshot.backfill_sort_ordinal == Some(1);
        let previous = self.snapshot.previous_run.as_ref()?;
        // With catchup a task may have begun after the previous run's date.
        let began_later = board.dag.catchup
            && previous
                .logical_date
                .zip(task.start_date)
                .is_some_and(|(date, start)| date < start);
        if first_of_backfill || began_later {
            return None;
        }
        let Some(successful) = self.previous.get(task.task_id.as_str()) else {
            let first_ever = task.ignore_first_depends_on_past
                && !previous.tasks_with_history.contains(&task.task_id);
            return (!first_ever).then_some(Waiting::PreviousRun);
        };
        let downstream_unsuccessful = task.wait_for_downstream
            && task.downstream.iter().any(|&downstream| {
                let id = board.dag.tasks[downstream].task_id.as_str();
                self.previous.get(id) == Some(&false)
            });
        (!successful || downstream_unsuccessful).then_some(Waiting::PreviousRun)
    }

    /// `airflow: NotInRetryPeriodDep`
    fn retry_delay(
        &self,
        board: &Board<'a>,
        piece: &Piece<'a>,
        task: &SerializedTask,
    ) -> Option<Waiting> {
        let row = piece
            .row
            .filter(|_| piece.state == Some(TaskInstanceState::UpForRetry))?;
        let until = next_retry_at(task, row, &board.dag.dag_id, self.snapshot.run.logical_date);
        (until > self.now).then_some(Waiting::RetryDelay { until })
    }

    /// `airflow: ReadyToRescheduleDep`
    fn reschedule(&self, piece: &Piece<'a>, task: &SerializedTask) -> Option<Waiting> {
        let applies = match piece.state {
            Some(TaskInstanceState::UpForReschedule) => true,
            None => task.is_sensor && (piece.map_index >= 0 || task.reschedule),
            Some(_) => false,
        };
        if !applies {
            return None;
        }
        let until = *self.snapshot.reschedule_dates.get(&piece.id)?;
        (until > self.now).then_some(Waiting::Reschedule { until })
    }
}

/// Python's `in`: membership of a list, or a part of a string.
fn names(value: &Value, task_id: &str) -> bool {
    match value {
        Value::Array(ids) => ids.iter().any(|id| id.as_str() == Some(task_id)),
        Value::String(text) => text.contains(task_id),
        Value::Object(map) => map.contains_key(task_id),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

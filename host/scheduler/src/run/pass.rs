//! One look at task instances after another, until nothing moves. Each pass sees what the passes before it did,
//! as each of Airflow's scheduler loops does; a chain of EmptyOperators takes as many passes as it is long.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use model::{TaskIndex, TaskInstanceState};
use uuid::Uuid;

use super::board::{Board, PieceIndex};
use super::dependencies::{Delays, Dependencies, Finding};
use super::identity::Identities;
use crate::mapping::{self, Count};
use crate::plan::Decision;
use crate::runs::{is_active, new_task_instance};
use crate::snapshot::RunSnapshot;
use crate::weights::priority_weights;

pub(super) struct Passes<'a> {
    pub(super) board: Board<'a>,
    pub(super) dependencies: Dependencies<'a>,
    pub(super) decisions: Vec<Decision>,
    identities: Identities<'a>,
    /// Tasks in the order of a pass, which is that of their ids, and the place of each.
    order: Vec<TaskIndex>,
    places: Vec<usize>,
    /// Computed when the first task instance is made.
    weights: Option<Vec<i32>>,
}

/// States that a task instance is scheduled from. `airflow: SCHEDULEABLE_STATES`
pub(super) fn is_candidate(state: Option<TaskInstanceState>) -> bool {
    matches!(
        state,
        None | Some(TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule)
    )
}

impl<'a> Passes<'a> {
    pub(super) fn new(board: Board<'a>, snapshot: &'a RunSnapshot, now: DateTime<Utc>) -> Self {
        let tasks = &board.dag.tasks;
        let mut order: Vec<TaskIndex> = (0..tasks.len()).collect();
        order.sort_by_key(|&task| tasks[task].task_id.as_str());
        let mut places = vec![0; tasks.len()];
        for (place, &task) in order.iter().enumerate() {
            places[task] = place;
        }
        Self {
            order,
            places,
            dependencies: Dependencies::new(&board, snapshot, now),
            board,
            decisions: Vec::new(),
            identities: Identities::new(&snapshot.run, now),
            weights: None,
        }
    }

    /// Runs passes over all tasks, then over whatever they move.
    pub(super) fn run(&mut self) {
        self.run_from((0..self.order.len()).collect());
    }

    fn run_from(&mut self, mut places: BTreeSet<usize>) {
        while !places.is_empty() {
            for place in places {
                self.look_at(self.order[place]);
            }
            places = self.end_pass();
        }
    }

    /// Makes the changes visible; returns the places of those who must be looked at because of them.
    fn end_pass(&mut self) -> BTreeSet<usize> {
        let touched = self.board.end_pass();
        let structure = &self.dependencies.structure;
        touched
            .into_iter()
            .flat_map(|task| structure.dependents(self.board.dag, task))
            .map(|task| self.places[task])
            .collect()
    }

    /// airflow: DagRun._get_ready_tis
    fn look_at(&mut self, task: TaskIndex) {
        let mut pieces: Vec<PieceIndex> = self.board.of_task(task).collect();
        pieces.retain(|&piece| is_candidate(self.board.pieces[piece].state));
        if pieces.is_empty() {
            return;
        }
        let dag = self.board.dag;
        let count = mapping::count(dag, &dag.tasks[task], &self.board);
        let mut is_revised = false;
        let mut next = 0;
        while let Some(&piece) = pieces.get(next) {
            next += 1;
            let found = self.dependencies.find(
                &self.board,
                &self.board.pieces[piece],
                count,
                Delays::Respected,
            );
            match found {
                Finding::Force(state) => self.force(piece, state),
                Finding::Waits(_) => {}
                Finding::Ready => {
                    if self.board.pieces[piece].map_index < 0 && count != Count::NotMapped {
                        pieces.extend(self.expand(piece, count));
                        continue;
                    }
                    if !is_revised {
                        is_revised = true;
                        self.revise(piece, count);
                    }
                    if is_candidate(self.board.pieces[piece].state) {
                        self.schedule(piece);
                    }
                }
            }
        }
    }

    pub(super) fn force(&mut self, piece: PieceIndex, to: TaskInstanceState) {
        let found = &self.board.pieces[piece];
        self.decisions.push(Decision::Force {
            id: found.id,
            from: found.state,
            to,
        });
        self.board.set_state(piece, Some(to));
    }

    fn mark(&mut self, piece: PieceIndex, to: TaskInstanceState) {
        let found = &self.board.pieces[piece];
        self.decisions.push(Decision::Mark {
            id: found.id,
            from: found.state,
            to,
        });
        self.board.set_state(piece, Some(to));
    }

    /// `airflow: DagRun.schedule_tis`
    fn schedule(&mut self, piece: PieceIndex) {
        let found = &self.board.pieces[piece];
        if self.board.dag.tasks[found.task].succeeds_without_worker() {
            self.decisions.push(Decision::SucceedEmpty { id: found.id });
            self.board
                .set_state(piece, Some(TaskInstanceState::Success));
        } else {
            self.decisions.push(Decision::Schedule {
                id: found.id,
                new_try: found.state != Some(TaskInstanceState::UpForReschedule),
            });
            self.board
                .set_state(piece, Some(TaskInstanceState::Scheduled));
        }
    }

    /// Turns the unexpanded task instance into as many as there are to be; returns those to be looked at.
    /// `airflow: TaskMap.expand_mapped_task`
    fn expand(&mut self, piece: PieceIndex, count: Count) -> Vec<PieceIndex> {
        let length = match count {
            Count::NotMapped | Count::Unknown => {
                self.mark(piece, TaskInstanceState::UpstreamFailed);
                return Vec::new();
            }
            Count::Known(length) if length < 1 => {
                self.mark(piece, TaskInstanceState::Skipped);
                self.remove_from(piece, 0);
                return Vec::new();
            }
            Count::Known(length) => i32::try_from(length).unwrap_or(i32::MAX),
        };
        let found = &self.board.pieces[piece];
        let (id, task, version) = (found.id, found.task, found.dag_version_id);
        let mut made = Vec::new();
        if self.board.at(task, 0).is_none() {
            self.decisions.push(Decision::Expand { id });
            self.board.become_first(piece);
            made.push(piece);
        } else {
            self.decisions.push(Decision::Delete { id });
            self.board.delete(piece);
        }
        let last = self.board.last_map_index(task).unwrap_or(0).max(0);
        for map_index in last.saturating_add(1)..length {
            made.push(self.insert(task, map_index, version));
        }
        self.remove_from(piece, length);
        made
    }

    /// Task instances beyond the length are removed.
    fn remove_from(&mut self, piece: PieceIndex, length: i32) {
        let task = self.board.pieces[piece].task;
        let beyond: Vec<PieceIndex> = self
            .board
            .of_task(task)
            .filter(|&piece| self.board.pieces[piece].map_index >= length)
            .collect();
        self.remove(beyond);
    }

    fn remove(&mut self, pieces: Vec<PieceIndex>) {
        for piece in pieces {
            if self.board.pieces[piece].state != Some(TaskInstanceState::Removed) {
                self.mark(piece, TaskInstanceState::Removed);
            }
        }
    }

    /// An expanded task whose length changed: extra task instances are removed, missing ones are made and
    /// scheduled without a look at their dependencies. `airflow: DagRun._revise_map_indexes_if_mapped`
    fn revise(&mut self, piece: PieceIndex, count: Count) {
        let Count::Known(length) = count else {
            return;
        };
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        let found = &self.board.pieces[piece];
        let (task, version) = (found.task, found.dag_version_id);
        let extra: Vec<PieceIndex> = self
            .board
            .of_task(task)
            .filter(|&piece| !(0..length).contains(&self.board.pieces[piece].map_index))
            .collect();
        self.remove(extra);
        let missing: Vec<i32> = (0..length)
            .filter(|&map_index| self.board.at(task, map_index).is_none())
            .collect();
        for map_index in missing {
            let made = self.insert(task, map_index, version);
            self.schedule(made);
        }
    }

    fn insert(
        &mut self,
        task: TaskIndex,
        map_index: i32,
        dag_version_id: Option<Uuid>,
    ) -> PieceIndex {
        let dag = self.board.dag;
        let weights = self.weights.get_or_insert_with(|| priority_weights(dag));
        let id = self.identities.of(&dag.tasks[task].task_id, map_index);
        self.decisions.push(Decision::Insert {
            id,
            dag_version_id,
            task_instance: Box::new(new_task_instance(
                &dag.tasks[task],
                map_index,
                weights[task],
            )),
        });
        self.board.insert(id, task, map_index, dag_version_id)
    }

    /// What a new version of the DAG asks for: task instances of tasks that came, and came back.
    /// `airflow: DagRun.verify_integrity`
    pub(super) fn verify_integrity(&mut self, snapshot: &RunSnapshot) {
        let dag = self.board.dag;
        for task in 0..dag.tasks.len() {
            let definition = &dag.tasks[task];
            if self.board.has_rows(task) {
                // Removed mapped task instances may be beyond the length: only expansion brings those back.
                if !definition.needs_expansion {
                    self.restore(task);
                }
                continue;
            }
            if !is_active(definition, snapshot.run.logical_date, snapshot.run.run_type) {
                continue;
            }
            match mapping::count(dag, definition, &self.board) {
                Count::Known(length) if length > 0 => {
                    for map_index in 0..i32::try_from(length).unwrap_or(i32::MAX) {
                        self.insert(task, map_index, None);
                    }
                }
                Count::Known(_) | Count::Unknown | Count::NotMapped => {
                    self.insert(task, -1, None);
                }
            }
        }
    }

    fn restore(&mut self, task: TaskIndex) {
        let removed: Vec<PieceIndex> = self
            .board
            .of_task(task)
            .filter(|&piece| self.board.pieces[piece].state == Some(TaskInstanceState::Removed))
            .collect();
        for piece in removed {
            let id = self.board.pieces[piece].id;
            self.decisions.push(Decision::Restore { id });
            self.board.set_state(piece, None);
        }
    }

    /// Whether any unfinished task instance could run if no delay held it, in Airflow's order, up to the first
    /// that could. States are forced on the way, also upon running ones; those are looked at again.
    /// `airflow: DagRun._are_premature_tis`
    pub(super) fn look_for_movement(&mut self) -> Movement {
        let mut unfinished: Vec<PieceIndex> = self
            .board
            .live()
            .filter(|(_, piece)| piece.state.is_none_or(|state| !state.is_finished()))
            .map(|(index, _)| index)
            .collect();
        let tasks = &self.board.dag.tasks;
        unfinished.sort_by_key(|&piece| {
            let piece = &self.board.pieces[piece];
            (tasks[piece.task].task_id.as_str(), piece.map_index)
        });
        let mut movement = Movement::None;
        for piece in unfinished {
            let found = &self.board.pieces[piece];
            let task = &self.board.dag.tasks[found.task];
            let count = mapping::count(self.board.dag, task, &self.board);
            match self
                .dependencies
                .find(&self.board, found, count, Delays::Ignored)
            {
                Finding::Ready if movement == Movement::None => return Movement::Possible,
                Finding::Ready => break,
                Finding::Force(state) => {
                    self.force(piece, state);
                    movement = Movement::Forced;
                }
                Finding::Waits(_) => {}
            }
        }
        if movement == Movement::Forced {
            let places = self.end_pass();
            self.run_from(places);
        }
        movement
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Movement {
    /// Something may run, now or when its delay is over.
    Possible,
    /// Nothing may, but states changed.
    Forced,
    None,
}

//! What follows from the DAG alone: which tasks look at which others beyond their direct upstream.

use model::{ExpandInput, SerializedDag, TaskIndex};

pub(super) struct Structure {
    /// Setups that a task depends on without standing directly behind them.
    /// `airflow: get_upstreams_only_setups` less the direct ones
    pub(super) indirect_setups: Vec<Vec<TaskIndex>>,
    /// For a teardown: what stands between its setups and itself. `airflow: _evaluate_teardown_scope`
    pub(super) teardown_scope: Vec<Vec<TaskIndex>>,
    /// Tasks whose XComs decide how many task instances a task has, its own and those of mapped groups.
    pub(super) expansion_dependencies: Vec<Vec<TaskIndex>>,
    /// Who must be looked at again when a task changes, besides its direct downstream tasks.
    further_dependents: Vec<Vec<TaskIndex>>,
}

impl Structure {
    pub(super) fn new(dag: &SerializedDag) -> Self {
        let empty = vec![Vec::new(); dag.tasks.len()];
        let mut structure = Self {
            indirect_setups: empty.clone(),
            teardown_scope: empty.clone(),
            expansion_dependencies: empty.clone(),
            further_dependents: empty,
        };
        structure.find_setups(dag);
        structure.find_scopes(dag);
        for task in 0..dag.tasks.len() {
            structure.expansion_dependencies[task] = expansion_dependencies(dag, task);
        }
        for task in 0..dag.tasks.len() {
            let seen = [
                &structure.indirect_setups[task],
                &structure.teardown_scope[task],
                &structure.expansion_dependencies[task],
            ];
            for &other in seen.into_iter().flatten() {
                structure.further_dependents[other].push(task);
            }
        }
        structure
    }

    pub(super) fn dependents(
        &self,
        dag: &SerializedDag,
        task: TaskIndex,
    ) -> impl Iterator<Item = TaskIndex> {
        dag.tasks[task]
            .downstream
            .iter()
            .chain(&self.further_dependents[task])
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn find_setups(&mut self, dag: &SerializedDag) {
        for (setup, task) in dag.tasks.iter().enumerate() {
            if !task.is_setup {
                continue;
            }
            let teardowns: Vec<TaskIndex> = task
                .downstream
                .iter()
                .copied()
                .filter(|&downstream| dag.tasks[downstream].is_teardown)
                .collect();
            // Who has one of the setup's teardowns downstream; without teardowns the setup matters to all.
            let before_teardown = (!teardowns.is_empty()).then(|| {
                let mut before = vec![false; dag.tasks.len()];
                for &teardown in &teardowns {
                    walk(dag, teardown, Direction::Upstream, |task| {
                        before[task] = true
                    });
                }
                before
            });
            walk(dag, setup, Direction::Downstream, |task| {
                let relevant = before_teardown.as_ref().is_none_or(|before| before[task]);
                let direct = dag.tasks[task].upstream.contains(&setup);
                if relevant && !direct && !dag.tasks[task].is_teardown {
                    self.indirect_setups[task].push(setup);
                }
            });
        }
    }

    fn find_scopes(&mut self, dag: &SerializedDag) {
        for (teardown, task) in dag.tasks.iter().enumerate() {
            if !task.is_teardown {
                continue;
            }
            let mut indirect = vec![false; dag.tasks.len()];
            walk(dag, teardown, Direction::Upstream, |task| {
                indirect[task] = true
            });
            for &upstream in &task.upstream {
                indirect[upstream] = false;
            }
            let mut in_scope = vec![false; dag.tasks.len()];
            for &setup in task.upstream.iter().filter(|&&up| dag.tasks[up].is_setup) {
                walk(dag, setup, Direction::Downstream, |task| {
                    in_scope[task] = indirect[task];
                });
            }
            self.teardown_scope[teardown] = (0..dag.tasks.len())
                .filter(|&task| in_scope[task])
                .collect();
        }
    }
}

/// `airflow: _iter_expansion_dependencies`
fn expansion_dependencies(dag: &SerializedDag, task: TaskIndex) -> Vec<TaskIndex> {
    let task = &dag.tasks[task];
    let groups = dag
        .mapped_groups(task)
        .filter_map(|group| dag.groups[group].expand_input.as_ref());
    let mut found: Vec<TaskIndex> = task
        .expand_input
        .iter()
        .chain(groups)
        .flat_map(ExpandInput::references)
        .filter_map(|id| dag.task_index(id))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[derive(Clone, Copy)]
enum Direction {
    Upstream,
    Downstream,
}

/// Visits all relatives of a task in one direction, each once, not the task itself.
fn walk(
    dag: &SerializedDag,
    from: TaskIndex,
    direction: Direction,
    mut visit: impl FnMut(TaskIndex),
) {
    let mut seen = vec![false; dag.tasks.len()];
    let mut open = vec![from];
    while let Some(task) = open.pop() {
        let relatives = match direction {
            Direction::Upstream => &dag.tasks[task].upstream,
            Direction::Downstream => &dag.tasks[task].downstream,
        };
        for &relative in relatives {
            if !seen[relative] {
                seen[relative] = true;
                visit(relative);
                open.push(relative);
            }
        }
    }
}

//! Which scheduled task instances get a slot now. `airflow: SchedulerJobRunner._executable_task_instances_to_queued`

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::plan::{Full, QueuePlan};
use crate::snapshot::{Candidate, QueueSnapshot};

/// Best first, each against all limits. Unlike Airflow, which looks at a limited number of candidates, all are
/// considered, so that one DAG at its limit starves nobody.
#[must_use]
pub fn plan(snapshot: &QueueSnapshot) -> QueuePlan {
    let mut order: Vec<&Candidate> = snapshot.candidates.iter().collect();
    order.sort_by(|a, b| rank(a).cmp(&rank(b)));
    let mut taken = Taken::default();
    let mut plan = QueuePlan::default();
    for candidate in order {
        match taken.full(snapshot, candidate) {
            Some(full) => plan.waiting.push((candidate.id, full)),
            None => {
                taken.take(candidate);
                plan.queue.push(candidate.id);
            }
        }
    }
    plan
}

/// Heaviest first, then the earliest logical date (none last), then the map index; the rest makes the order
/// independent of that of the rows.
fn rank(candidate: &Candidate) -> impl Ord {
    (
        Reverse(candidate.priority_weight),
        candidate.logical_date.is_none(),
        candidate.logical_date,
        candidate.map_index,
        candidate.dag_id.clone(),
        candidate.run_id.clone(),
        candidate.task_id.clone(),
        candidate.id,
    )
}

/// What this plan has handed out so far, on top of the snapshot.
#[derive(Default)]
struct Taken<'a> {
    all: i64,
    pools: HashMap<&'a str, i64>,
    runs: HashMap<(&'a str, &'a str), i64>,
    tasks: HashMap<(&'a str, &'a str), i64>,
    tasks_in_run: HashMap<(&'a str, &'a str, &'a str), i64>,
}

impl<'a> Taken<'a> {
    /// The first limit that holds the candidate back, in Airflow's order.
    fn full(&self, snapshot: &QueueSnapshot, candidate: &'a Candidate) -> Option<Full> {
        let Candidate {
            dag_id,
            run_id,
            task_id,
            pool,
            ..
        } = candidate;
        if snapshot.occupied + self.all >= snapshot.parallelism {
            return Some(Full::Parallelism {
                limit: snapshot.parallelism,
            });
        }
        let Some(slots) = snapshot.pools.get(pool) else {
            return Some(Full::Pool {
                pool: pool.clone(),
                exists: false,
            });
        };
        if slots.slots >= 0 {
            let total = i64::from(slots.slots);
            let open = total - slots.occupied - taken(&self.pools, &pool.as_str());
            let wanted = i64::from(candidate.pool_slots);
            if wanted > total {
                return Some(Full::PoolTooSmall {
                    pool: pool.clone(),
                    slots: candidate.pool_slots,
                });
            }
            if open <= 0 || wanted > open {
                return Some(Full::Pool {
                    pool: pool.clone(),
                    exists: true,
                });
            }
        }
        let run = known(&snapshot.active_in_run, &(dag_id.clone(), run_id.clone()))
            + taken(&self.runs, &(dag_id.as_str(), run_id.as_str()));
        if run >= i64::from(candidate.max_active_tasks) {
            return Some(Full::MaxActiveTasks {
                limit: candidate.max_active_tasks,
            });
        }
        if let Some(limit) = candidate.max_active_tis_per_dag {
            let active = known(&snapshot.active_of_task, &(dag_id.clone(), task_id.clone()))
                + taken(&self.tasks, &(dag_id.as_str(), task_id.as_str()));
            if active >= i64::from(limit) {
                return Some(Full::MaxActiveTisPerDag { limit });
            }
        }
        if let Some(limit) = candidate.max_active_tis_per_dagrun {
            let key = (dag_id.clone(), run_id.clone(), task_id.clone());
            let active = known(&snapshot.active_of_task_in_run, &key)
                + taken(
                    &self.tasks_in_run,
                    &(dag_id.as_str(), run_id.as_str(), task_id.as_str()),
                );
            if active >= i64::from(limit) {
                return Some(Full::MaxActiveTisPerDagRun { limit });
            }
        }
        None
    }

    fn take(&mut self, candidate: &'a Candidate) {
        let Candidate {
            dag_id,
            run_id,
            task_id,
            pool,
            ..
        } = candidate;
        self.all += 1;
        *self.pools.entry(pool).or_default() += i64::from(candidate.pool_slots);
        *self.runs.entry((dag_id, run_id)).or_default() += 1;
        *self.tasks.entry((dag_id, task_id)).or_default() += 1;
        *self
            .tasks_in_run
            .entry((dag_id, run_id, task_id))
            .or_default() += 1;
    }
}

fn known<K: std::hash::Hash + Eq>(counts: &HashMap<K, i64>, key: &K) -> i64 {
    counts.get(key).copied().unwrap_or(0)
}

fn taken<K: std::hash::Hash + Eq>(counts: &HashMap<K, i64>, key: &K) -> i64 {
    counts.get(key).copied().unwrap_or(0)
}

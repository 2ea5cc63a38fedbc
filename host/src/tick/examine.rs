//! Running runs: what their task instances do next, and whether a run has reached its end.

use chrono::{DateTime, Utc};
use metadata::callbacks::requests;
use metadata::run_snapshots::{Examined, Needs, Which};
use metadata::{apply, due, run_snapshots};
use scheduler::plan::{Decision, NextLook, Verdict};
use sqlx::PgConnection;

use super::{Error, Report, stored};
use crate::clock;
use crate::house::House;

/// Plans and applies; answers how many runs ended.
pub(super) async fn running_runs(
    house: &House,
    db: &mut PgConnection,
    which: Which,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let examined = run_snapshots::to_examine(db, which, now).await?;
    if examined.is_empty() {
        return Ok(0);
    }
    let mut dag_ids: Vec<String> = examined.iter().map(|e| e.run.dag_id.clone()).collect();
    dag_ids.sort_unstable();
    dag_ids.dedup();
    let stored = stored::latest(house, db, &dag_ids, report, now).await?;
    let mut wanted = Vec::with_capacity(examined.len());
    let mut known = Vec::with_capacity(examined.len());
    for Examined { run, is_paused } in examined {
        let Some(stored) = stored.get(&run.dag_id) else {
            continue;
        };
        let dag = &stored.dag;
        let needs = Needs {
            version: stored.dag_version_id,
            mapped_lengths: dag
                .tasks
                .iter()
                .any(|task| task.needs_expansion || task.is_mapped()),
            skips: dag.tasks.iter().any(|task| task.can_skip_downstream),
            previous_run: dag.depends_on_past(),
        };
        wanted.push((run, needs));
        known.push((std::sync::Arc::clone(dag), stored.dag_version_id, is_paused));
    }
    let looked = now;
    let snapshots = run_snapshots::load(db, wanted).await?;
    // A task may have ended after the tick began: what follows it starts after it.
    let now = clock::now();
    let mut looked_at = Vec::with_capacity(snapshots.len());
    let mut ended = Vec::new();
    for (snapshot, (dag, current, is_paused)) in snapshots.iter().zip(&known) {
        report.runs_examined += 1;
        if snapshot.dag_changed {
            apply::adopt_version(db, &snapshot.run, *current, now).await?;
        }
        let mut plan = scheduler::run::plan(dag, snapshot, now);
        for decision in &mut plan.decisions {
            // A task that came with a newer version of the DAG.
            if let Decision::Insert {
                dag_version_id: version @ None,
                ..
            } = decision
            {
                *version = Some(*current);
            }
        }
        let planned = plan.decisions.len();
        if *is_paused {
            plan.decisions.retain(|decision| !starts_work(decision));
        }
        let is_held = plan.decisions.len() < planned;
        let applied = apply::run_plan(db, &snapshot.run, &plan, now).await?;
        report.task_instances_changed += applied.rows;
        if applied.run_ended {
            if let Some(callback) = scheduler::callbacks::of_run(dag, snapshot, &plan) {
                let run = &snapshot.run;
                requests::of_run(db, &run.dag_id, &run.run_id, &callback, now).await?;
            }
            if plan.verdict == Verdict::Success && !dag.deadline.is_empty() {
                metadata::deadlines::prune(db, snapshot.run.id).await?;
            }
            report.runs_ended += 1;
            ended.push(snapshot.run.dag_id.clone());
            tracing::info!(
                dag_id = snapshot.run.dag_id,
                run_id = snapshot.run.run_id,
                verdict = ?plan.verdict,
                "run ended"
            );
        } else {
            let next = scheduler::run::next_look(dag, snapshot, &plan, now);
            looked_at.push((snapshot.run.id, NextLook { is_held, ..next }));
        }
    }
    apply::looked_at(db, &looked_at, looked).await?;
    if !ended.is_empty() {
        due::set_exceeds_max_active_runs(db, &ended).await?;
    }
    Ok(ended.len() as u64)
}

/// What does not happen in a run whose DAG is paused.
fn starts_work(decision: &Decision) -> bool {
    match decision {
        Decision::Schedule { .. } | Decision::SucceedEmpty { .. } => true,
        Decision::Force { .. }
        | Decision::Mark { .. }
        | Decision::Restore { .. }
        | Decision::Expand { .. }
        | Decision::Insert { .. }
        | Decision::Delete { .. } => false,
    }
}

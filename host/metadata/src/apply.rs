//! Applying what the scheduler decided about a run: consecutive decisions of one kind go in one statement, each
//! guarded by the state it was made on. What another writer changed in between is left alone; the next round
//! looks at the run again.

use chrono::{DateTime, Utc};
use model::{DagRun, NewTaskInstance, TaskInstanceState};
use scheduler::plan::{Decision, NextLook, RunPlan, Verdict};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;
use crate::dag_runs::{TaskInstancesOf, insert_task_instances};

/// How much of a plan found the rows as they were expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows written.
    pub rows: u64,
    /// Whether the run reached its end.
    pub run_ended: bool,
}

/// Writes the plan of one run.
///
/// # Errors
/// The database's errors.
pub async fn run_plan(
    db: &mut PgConnection,
    run: &DagRun,
    plan: &RunPlan,
    now: DateTime<Utc>,
) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let mut rest = plan.decisions.as_slice();
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|next| is_alike(first, next)).count();
        let (batch, tail) = rest.split_at(same);
        applied.rows += apply_alike(db, run, batch, now).await?;
        rest = tail;
    }
    applied.run_ended = end_run(db, run, &plan.verdict, now).await?;
    Ok(applied)
}

/// Whether two decisions can share a statement.
fn is_alike(a: &Decision, b: &Decision) -> bool {
    match (a, b) {
        (Decision::Schedule { new_try: a, .. }, Decision::Schedule { new_try: b, .. }) => a == b,
        (Decision::Force { from: f, to: t, .. }, Decision::Force { from, to, .. })
        | (Decision::Mark { from: f, to: t, .. }, Decision::Mark { from, to, .. }) => {
            f == from && t == to
        }
        (
            Decision::Insert {
                dag_version_id: a, ..
            },
            Decision::Insert {
                dag_version_id: b, ..
            },
        ) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

async fn apply_alike(
    db: &mut PgConnection,
    run: &DagRun,
    batch: &[Decision],
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let ids: Vec<Uuid> = batch.iter().map(id_of).collect();
    match &batch[0] {
        Decision::Schedule { new_try, .. } => schedule(db, &ids, *new_try, now).await,
        Decision::SucceedEmpty { .. } => succeed_empty(db, &ids, now).await,
        Decision::Force { from, to, .. } => force(db, &ids, *from, *to, now).await,
        Decision::Mark { from, to, .. } => mark(db, &ids, *from, *to, now).await,
        Decision::Restore { .. } => restore(db, &ids, now).await,
        Decision::Expand { .. } => expand(db, &ids, now).await,
        Decision::Delete { .. } => delete(db, &ids).await,
        Decision::Insert { dag_version_id, .. } => {
            let new: Vec<(Uuid, &NewTaskInstance)> = batch
                .iter()
                .filter_map(|decision| match decision {
                    Decision::Insert {
                        id, task_instance, ..
                    } => Some((*id, &**task_instance)),
                    _ => None,
                })
                .collect();
            let of = TaskInstancesOf {
                dag_id: &run.dag_id,
                run_id: &run.run_id,
                dag_version_id: *dag_version_id,
                context_carrier: &run.context_carrier,
            };
            insert_task_instances(db, &of, &new, now).await
        }
    }
}

fn id_of(decision: &Decision) -> Uuid {
    match decision {
        Decision::Schedule { id, .. }
        | Decision::SucceedEmpty { id }
        | Decision::Force { id, .. }
        | Decision::Mark { id, .. }
        | Decision::Restore { id }
        | Decision::Expand { id }
        | Decision::Insert { id, .. }
        | Decision::Delete { id } => *id,
    }
}

/// `airflow: DagRun.schedule_tis`
async fn schedule(
    db: &mut PgConnection,
    ids: &[Uuid],
    new_try: bool,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance SET state = 'scheduled', scheduled_dttm = $2, updated_at = $2, \
                try_number = try_number + $3 \
          WHERE id = ANY($1) \
            AND (state IS NULL OR state IN ('up_for_retry', 'up_for_reschedule'))",
    )
    .bind(ids)
    .bind(now)
    .bind(i32::from(new_try))
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// `airflow: DagRun.schedule_tis`, the short cut for EmptyOperator.
async fn succeed_empty(
    db: &mut PgConnection,
    ids: &[Uuid],
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance SET state = 'success', start_date = $2, end_date = $2, duration = 0, \
                updated_at = $2, try_number = try_number + 1 \
          WHERE id = ANY($1) \
            AND (state IS NULL OR state IN ('up_for_retry', 'up_for_reschedule'))",
    )
    .bind(ids)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// `airflow: TaskInstance.set_state`
async fn force(
    db: &mut PgConnection,
    ids: &[Uuid],
    from: Option<TaskInstanceState>,
    to: TaskInstanceState,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance SET state = $3, start_date = coalesce(start_date, $4), \
                end_date = coalesce(end_date, $4), \
                duration = extract(epoch FROM coalesce(end_date, $4) - coalesce(start_date, $4)), \
                updated_at = $4 \
          WHERE id = ANY($1) AND state IS NOT DISTINCT FROM $2",
    )
    .bind(ids)
    .bind(from.map(TaskInstanceState::as_str))
    .bind(to.as_str())
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The state alone. `airflow: TaskMap.expand_mapped_task`, `DagRun.verify_integrity`
async fn mark(
    db: &mut PgConnection,
    ids: &[Uuid],
    from: Option<TaskInstanceState>,
    to: TaskInstanceState,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance SET state = $3, updated_at = $4 \
          WHERE id = ANY($1) AND state IS NOT DISTINCT FROM $2",
    )
    .bind(ids)
    .bind(from.map(TaskInstanceState::as_str))
    .bind(to.as_str())
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

async fn restore(db: &mut PgConnection, ids: &[Uuid], now: DateTime<Utc>) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance SET state = NULL, updated_at = $2 \
          WHERE id = ANY($1) AND state = 'removed'",
    )
    .bind(ids)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// `airflow: TaskMap.expand_mapped_task`; what an earlier life of the row left is cleared with it.
async fn expand(db: &mut PgConnection, ids: &[Uuid], now: DateTime<Utc>) -> Result<u64, Error> {
    for statement in [
        "DELETE FROM xcom x USING task_instance ti WHERE ti.id = ANY($1) AND x.dag_id = ti.dag_id \
            AND x.run_id = ti.run_id AND x.task_id = ti.task_id AND x.map_index = ti.map_index",
        "DELETE FROM rendered_task_instance_fields r USING task_instance ti WHERE ti.id = ANY($1) \
            AND r.dag_id = ti.dag_id AND r.run_id = ti.run_id AND r.task_id = ti.task_id \
            AND r.map_index = ti.map_index",
        "DELETE FROM task_map m USING task_instance ti WHERE ti.id = ANY($1) AND m.dag_id = ti.dag_id \
            AND m.run_id = ti.run_id AND m.task_id = ti.task_id AND m.map_index = ti.map_index",
        "DELETE FROM task_instance_note WHERE ti_id = ANY($1)",
        "DELETE FROM task_reschedule WHERE ti_id = ANY($1)",
    ] {
        sqlx::query(statement).bind(ids).execute(&mut *db).await?;
    }
    let done = sqlx::query(
        "UPDATE task_instance SET map_index = 0, updated_at = $2 \
          WHERE id = ANY($1) AND map_index = -1",
    )
    .bind(ids)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

async fn delete(db: &mut PgConnection, ids: &[Uuid]) -> Result<u64, Error> {
    let done = sqlx::query(
        "DELETE FROM task_instance WHERE id = ANY($1) AND map_index = -1 AND state IS NULL",
    )
    .bind(ids)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Stores the verdict of a run that reached its end. `airflow: DagRun.update_state`
async fn end_run(
    db: &mut PgConnection,
    run: &DagRun,
    verdict: &Verdict,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let Some(state) = verdict.end_state() else {
        return Ok(false);
    };
    let done = sqlx::query(
        "UPDATE dag_run SET state = $2, end_date = $3, last_scheduling_decision = $3, updated_at = $3 \
          WHERE id = $1 AND state = 'running'",
    )
    .bind(run.id)
    .bind(state.as_str())
    .bind(now)
    .execute(&mut *db)
    .await?;
    let ended = done.rows_affected() == 1;
    if ended && matches!(verdict, Verdict::Failed(_)) {
        pause_after_failures(db, &run.dag_id, now).await?;
    }
    Ok(ended)
}

/// Pauses a DAG whose last `max_consecutive_failed_dag_runs` runs all failed.
/// `airflow: DagRun._check_last_n_dagruns_failed`
async fn pause_after_failures(
    db: &mut PgConnection,
    dag_id: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let paused = sqlx::query(
        "UPDATE dag d SET is_paused = true \
          WHERE d.dag_id = $1 AND NOT d.is_paused AND d.max_consecutive_failed_dag_runs > 0 \
            AND (SELECT count(*) FILTER (WHERE last.state = 'failed') \
                   FROM (SELECT r.state FROM dag_run r WHERE r.dag_id = d.dag_id \
                          ORDER BY r.run_after DESC, r.id DESC \
                          LIMIT d.max_consecutive_failed_dag_runs) AS last) \
                = d.max_consecutive_failed_dag_runs",
    )
    .bind(dag_id)
    .execute(&mut *db)
    .await?;
    if paused.rows_affected() == 1 {
        sqlx::query(
            "INSERT INTO log (dttm, dag_id, event, owner, extra) \
             VALUES ($2, $1, 'paused', 'scheduler', \
                     '{\"reason\": \"max_consecutive_failed_dag_runs reached\"}')",
        )
        .bind(dag_id)
        .bind(now)
        .execute(db)
        .await?;
    }
    Ok(())
}

/// What is under way in a run goes on in the latest version of the DAG; what has no state yet keeps its own.
/// `airflow: SchedulerJobRunner._verify_integrity_if_dag_changed`
///
/// # Errors
/// The database's errors.
pub async fn adopt_version(
    db: &mut PgConnection,
    run: &DagRun,
    version: Uuid,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE task_instance SET dag_version_id = $3, updated_at = $4 \
          WHERE dag_id = $1 AND run_id = $2 \
            AND state IN ('scheduled', 'queued', 'running', 'restarting', 'up_for_retry', 'up_for_reschedule', \
                          'deferred', 'awaiting_input')",
    )
    .bind(&run.dag_id)
    .bind(&run.run_id)
    .bind(version)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that running runs were looked at, and when each wants to be looked at again although nothing in it changes.
///
/// # Errors
/// The database's errors.
pub async fn looked_at(
    db: &mut PgConnection,
    runs: &[(i32, NextLook)],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if runs.is_empty() {
        return Ok(());
    }
    let ids: Vec<i32> = runs.iter().map(|(id, _)| *id).collect();
    let times: Vec<Option<DateTime<Utc>>> = runs.iter().map(|(_, next)| next.at).collect();
    let after: Vec<Option<&str>> = runs
        .iter()
        .map(|(_, next)| next.after_run_id.as_deref())
        .collect();
    let held: Vec<bool> = runs.iter().map(|(_, next)| next.is_held).collect();
    sqlx::query("UPDATE dag_run SET last_scheduling_decision = $2 WHERE id = ANY($1)")
        .bind(&ids)
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "WITH seen AS (SELECT *, wake_at IS NOT NULL OR after_run_id IS NOT NULL OR is_held AS is_wanted \
                         FROM unnest($1::int[], $2::timestamptz[], $3::text[], $4::bool[]) \
                              AS seen (id, wake_at, after_run_id, is_held)), \
              gone AS (DELETE FROM modalflow.run_wake w USING seen \
                        WHERE w.dag_run_id = seen.id AND NOT seen.is_wanted) \
         INSERT INTO modalflow.run_wake AS w (dag_run_id, wake_at, after_run_id, is_held) \
         SELECT id, wake_at, after_run_id, is_held FROM seen WHERE is_wanted \
         ON CONFLICT (dag_run_id) DO UPDATE \
            SET wake_at = EXCLUDED.wake_at, after_run_id = EXCLUDED.after_run_id, is_held = EXCLUDED.is_held \
          WHERE (w.wake_at, w.after_run_id, w.is_held) \
                IS DISTINCT FROM (EXCLUDED.wake_at, EXCLUDED.after_run_id, EXCLUDED.is_held)",
    )
    .bind(&ids)
    .bind(&times)
    .bind(&after)
    .bind(&held)
    .execute(db)
    .await?;
    Ok(())
}

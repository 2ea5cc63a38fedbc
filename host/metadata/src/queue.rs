//! Scheduled task instances, the limits that hold them back, and handing them to the executor.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use scheduler::snapshot::{Candidate, Pool, QueueSnapshot};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::Error;

/// What the queueing step looks at. Task limits (`max_active_tis_per_dag`, `…_per_dagrun`) stand in the serialized
/// DAG: the caller fills them in for the DAGs that [`Candidates::limited_dags`] names.
#[derive(Debug, Default)]
pub struct Candidates {
    pub snapshot: QueueSnapshot,
    /// DAGs with `has_task_concurrency_limits` that have candidates.
    pub limited_dags: Vec<String>,
}

/// Loads the candidates; none when all of `parallelism` is taken.
/// `airflow: SchedulerJobRunner._executable_task_instances_to_queued`
///
/// # Errors
/// The database's errors.
pub async fn candidates(db: &mut PgConnection, parallelism: i64) -> Result<Candidates, Error> {
    // Ranked within the run before anything is cut off: a run at its limit can't crowd out the others.
    let rows = sqlx::query(
        "SELECT c.* \
           FROM (SELECT ti.id, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, dr.logical_date, ti.pool, \
                        ti.pool_slots, coalesce(ti.priority_weight, 1) AS priority_weight, \
                        d.max_active_tasks, d.has_task_concurrency_limits, \
                        row_number() OVER (PARTITION BY ti.dag_id, ti.run_id \
                                           ORDER BY ti.priority_weight DESC, ti.map_index) AS rank \
                   FROM task_instance ti \
                   JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
                                  AND dr.state = 'running' \
                   JOIN dag d ON d.dag_id = ti.dag_id AND NOT d.is_paused \
                  WHERE ti.state = 'scheduled') AS c \
          WHERE c.has_task_concurrency_limits OR c.rank <= c.max_active_tasks \
          ORDER BY c.priority_weight DESC, c.logical_date NULLS LAST, c.map_index",
    )
    .fetch_all(&mut *db)
    .await?;
    if rows.is_empty() {
        return Ok(Candidates::default());
    }
    let mut found = Candidates::default();
    found.snapshot.parallelism = parallelism;
    for row in &rows {
        let candidate = Candidate {
            id: row.try_get("id")?,
            dag_id: row.try_get("dag_id")?,
            run_id: row.try_get("run_id")?,
            task_id: row.try_get("task_id")?,
            map_index: row.try_get("map_index")?,
            logical_date: row.try_get("logical_date")?,
            pool: row.try_get("pool")?,
            pool_slots: row.try_get("pool_slots")?,
            priority_weight: row.try_get("priority_weight")?,
            max_active_tasks: row.try_get("max_active_tasks")?,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
        };
        if row.try_get("has_task_concurrency_limits")?
            && !found.limited_dags.contains(&candidate.dag_id)
        {
            found.limited_dags.push(candidate.dag_id.clone());
        }
        found.snapshot.candidates.push(candidate);
    }
    load_pools(db, &mut found.snapshot).await?;
    load_active(db, &mut found.snapshot).await?;
    if !found.limited_dags.is_empty() {
        load_active_of_tasks(db, &mut found.snapshot, &found.limited_dags).await?;
    }
    Ok(found)
}

/// `airflow: Pool.slots_stats`; a human editing a pool holds its row, and then this waits, for 5 s at most.
async fn load_pools(db: &mut PgConnection, snapshot: &mut QueueSnapshot) -> Result<(), Error> {
    let rows: Vec<(String, i32, i64)> = sqlx::query_as(
        "SELECT p.pool, p.slots, coalesce(sum(ti.pool_slots), 0) \
           FROM slot_pool p \
           LEFT JOIN task_instance ti ON ti.pool = p.pool \
                 AND (ti.state IN ('running', 'queued') OR p.include_deferred AND ti.state = 'deferred') \
          GROUP BY p.pool, p.slots",
    )
    .fetch_all(db)
    .await?;
    snapshot.pools = rows
        .into_iter()
        .map(|(pool, slots, occupied)| (pool, Pool { slots, occupied }))
        .collect();
    Ok(())
}

async fn load_active(db: &mut PgConnection, snapshot: &mut QueueSnapshot) -> Result<(), Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT dag_id, run_id, count(*) FROM task_instance \
          WHERE state IN ('queued', 'running') GROUP BY dag_id, run_id",
    )
    .fetch_all(db)
    .await?;
    snapshot.occupied = rows.iter().map(|(_, _, count)| count).sum();
    snapshot.active_in_run = rows
        .into_iter()
        .map(|(dag_id, run_id, count)| ((dag_id, run_id), count))
        .collect();
    Ok(())
}

async fn load_active_of_tasks(
    db: &mut PgConnection,
    snapshot: &mut QueueSnapshot,
    dag_ids: &[String],
) -> Result<(), Error> {
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT dag_id, run_id, task_id, count(*) FROM task_instance \
          WHERE dag_id = ANY($1) AND state IN ('running', 'queued', 'deferred', 'awaiting_input') \
          GROUP BY dag_id, run_id, task_id",
    )
    .bind(dag_ids)
    .fetch_all(db)
    .await?;
    let mut of_task: HashMap<(String, String), i64> = HashMap::new();
    for (dag_id, run_id, task_id, count) in rows {
        *of_task
            .entry((dag_id.clone(), task_id.clone()))
            .or_default() += count;
        snapshot
            .active_of_task_in_run
            .insert((dag_id, run_id, task_id), count);
    }
    snapshot.active_of_task = of_task;
    Ok(())
}

/// scheduled -> queued, with the intent to start each: both are committed before any call goes out.
/// Answers the intents that were made.
///
/// # Errors
/// The database's errors.
pub async fn queue(
    db: &mut PgConnection,
    ids: &[Uuid],
    job_id: Option<i32>,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let dispatch_ids: Vec<Uuid> = ids.iter().map(|_| Uuid::now_v7()).collect();
    let done = sqlx::query(
        "WITH queued AS ( \
             UPDATE task_instance ti SET state = 'queued', queued_dttm = $3, queued_by_job_id = $4, \
                    external_executor_id = NULL, updated_at = $3 \
               FROM unnest($1::uuid[], $2::uuid[]) AS n (id, dispatch_id) \
              WHERE ti.id = n.id AND ti.state = 'scheduled' \
             RETURNING ti.id, n.dispatch_id, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number) \
         INSERT INTO modalflow.dispatch (dispatch_id, ti_id, created_at, not_before) \
         SELECT dispatch_id, id, $3, \
                (SELECT r.not_before FROM modalflow.requeue r \
                  WHERE r.dag_id = q.dag_id AND r.run_id = q.run_id AND r.task_id = q.task_id \
                    AND r.map_index = q.map_index AND r.try_number = q.try_number AND r.not_before > $3) \
           FROM queued q \
         ON CONFLICT (ti_id) DO UPDATE SET dispatch_id = EXCLUDED.dispatch_id, call_id = NULL, failures = 0, \
                not_before = EXCLUDED.not_before, created_at = EXCLUDED.created_at, spawned_at = NULL",
    )
    .bind(ids)
    .bind(&dispatch_ids)
    .bind(now)
    .bind(job_id)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

//! Runs: inserting them with their task instances, starting the queued ones.

use chrono::{DateTime, Utc};
use model::NewTaskInstance;
use scheduler::plan::NewDagRun;
use scheduler::snapshot::QueuedRun;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{Error, carrier, executor_config};

/// What a run takes from its DAG and its maker when it is inserted.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The version that the run is made from; its task instances get it too.
    pub dag_version_id: Uuid,
    /// Our `SchedulerJob` row, for runs that the tick makes.
    pub creating_job_id: Option<i32>,
}

/// Whether the run was inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The new run's primary key.
    New(i32),
    /// There is a run of this `run_id` or logical date already; nothing was written.
    Exists,
}

/// Inserts the run in state queued, and its task instances without a state.
/// `airflow: DAG.create_dagrun`, `DagRun.verify_integrity`
///
/// # Errors
/// The database's errors.
pub async fn insert(
    db: &mut PgConnection,
    run: &NewDagRun,
    origin: &Origin,
    now: DateTime<Utc>,
) -> Result<Inserted, Error> {
    let context = carrier::new_trace();
    let id: Option<i32> = sqlx::query_scalar(
        "INSERT INTO dag_run (dag_id, run_id, queued_at, logical_date, state, creating_job_id, run_type, \
                triggered_by, triggering_user_name, conf, data_interval_start, data_interval_end, run_after, \
                log_template_id, created_at, updated_at, clear_number, bundle_version, context_carrier, \
                span_status, created_dag_version_id, partition_key, partition_date) \
         SELECT $1, $2, $3, $4, 'queued', $5, $6, $7, $8, $9, $10, $11, $12, \
                (SELECT max(id) FROM log_template), $3, $3, 0, \
                (SELECT bundle_version FROM dag WHERE dag_id = $1), $13, 'not_started', $14, $15, $16 \
         ON CONFLICT DO NOTHING \
         RETURNING id",
    )
    .bind(&run.dag_id)
    .bind(&run.run_id)
    .bind(now)
    .bind(run.logical_date)
    .bind(origin.creating_job_id)
    .bind(run.run_type.as_str())
    .bind(run.triggered_by.as_str())
    .bind(&run.triggering_user_name)
    .bind(&run.conf)
    .bind(run.data_interval_start)
    .bind(run.data_interval_end)
    .bind(run.run_after)
    .bind(&context)
    .bind(origin.dag_version_id)
    .bind(&run.partition_key)
    .bind(run.partition_date)
    .fetch_optional(&mut *db)
    .await?;
    let Some(id) = id else {
        return Ok(Inserted::Exists);
    };
    let task_instances: Vec<(Uuid, &NewTaskInstance)> = run
        .task_instances
        .iter()
        .map(|ti| (Uuid::now_v7(), ti))
        .collect();
    let of = TaskInstancesOf {
        dag_id: &run.dag_id,
        run_id: &run.run_id,
        dag_version_id: Some(origin.dag_version_id),
        context_carrier: &context,
    };
    insert_task_instances(db, &of, &task_instances, now).await?;
    let new = crate::deadlines::NewRun {
        id,
        dag_id: &run.dag_id,
        dag_version_id: origin.dag_version_id,
        logical_date: run.logical_date,
        queued_at: now,
    };
    crate::deadlines::create(db, &new, now).await?;
    Ok(Inserted::New(id))
}

/// The run that new task instances belong to.
#[derive(Debug, Clone, Copy)]
pub struct TaskInstancesOf<'a> {
    pub dag_id: &'a str,
    pub run_id: &'a str,
    pub dag_version_id: Option<Uuid>,
    /// The run's trace context.
    pub context_carrier: &'a serde_json::Value,
}

/// Inserts task instances without a state in one statement; those that exist already are left alone.
/// `airflow: TaskInstance.insert_mapping`
///
/// # Errors
/// The database's errors.
pub async fn insert_task_instances(
    db: &mut PgConnection,
    of: &TaskInstancesOf<'_>,
    new: &[(Uuid, &NewTaskInstance)],
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    if new.is_empty() {
        return Ok(0);
    }
    let column = |pick: fn(&NewTaskInstance) -> i32| -> Vec<i32> {
        new.iter().map(|(_, ti)| pick(ti)).collect()
    };
    let text = |pick: fn(&NewTaskInstance) -> &str| -> Vec<&str> {
        new.iter().map(|(_, ti)| pick(ti)).collect()
    };
    let ids: Vec<Uuid> = new.iter().map(|(id, _)| *id).collect();
    let carriers: Vec<serde_json::Value> = new
        .iter()
        .map(|_| carrier::child(of.context_carrier))
        .collect();
    let executors: Vec<Option<&str>> = new.iter().map(|(_, ti)| ti.executor.as_deref()).collect();
    let configs: Vec<Vec<u8>> = new
        .iter()
        .map(|(_, ti)| executor_config::pickled(&ti.executor_config))
        .collect::<Result<_, _>>()?;
    let done = sqlx::query(
        "INSERT INTO task_instance (id, dag_id, run_id, task_id, map_index, try_number, max_tries, hostname, \
                unixname, pool, pool_slots, queue, priority_weight, operator, custom_operator_name, executor, \
                executor_config, updated_at, context_carrier, span_status, task_display_name, dag_version_id) \
         SELECT n.id, $1, $2, n.task_id, n.map_index, 0, n.max_tries, '', '', n.pool, n.pool_slots, n.queue, \
                n.priority_weight, n.operator, n.custom_operator_name, n.executor, n.executor_config, $3, \
                n.context_carrier, 'not_started', n.task_display_name, $4 \
           FROM unnest($5::uuid[], $6::text[], $7::int[], $8::int[], $9::text[], $10::int[], $11::text[], \
                       $12::int[], $13::text[], $14::text[], $15::text[], $16::jsonb[], $17::text[], $18::bytea[]) \
                AS n (id, task_id, map_index, max_tries, pool, pool_slots, queue, priority_weight, operator, \
                      custom_operator_name, executor, context_carrier, task_display_name, executor_config) \
         ON CONFLICT DO NOTHING",
    )
    .bind(of.dag_id)
    .bind(of.run_id)
    .bind(now)
    .bind(of.dag_version_id)
    .bind(&ids)
    .bind(text(|ti| &ti.task_id))
    .bind(column(|ti| ti.map_index))
    .bind(column(|ti| ti.max_tries))
    .bind(text(|ti| &ti.pool))
    .bind(column(|ti| ti.pool_slots))
    .bind(text(|ti| &ti.queue))
    .bind(column(|ti| ti.priority_weight))
    .bind(text(|ti| &ti.operator))
    .bind(text(|ti| &ti.custom_operator_name))
    .bind(executors)
    .bind(carriers)
    .bind(text(|ti| &ti.task_display_name))
    .bind(configs)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Queued runs that may start by date, of DAGs that are neither paused nor stale, with what is running
/// beside them. `airflow: DagRun.get_queued_dag_runs_to_set_running`
///
/// # Errors
/// The database's errors.
pub async fn queued(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<QueuedRun>, Error> {
    // Ranked within its DAG before any limit: one DAG with a thousand queued runs can't crowd out the others.
    let rows = sqlx::query(
        "SELECT q.id, q.dag_id, q.run_id, q.run_after, q.logical_date, q.backfill_id, q.sort_ordinal, \
                q.max_active_runs, q.running \
           FROM (SELECT dr.id, dr.dag_id, dr.run_id, dr.run_after, dr.logical_date, dr.backfill_id, \
                        b.sort_ordinal, \
                        coalesce(bf.max_active_runs, d.max_active_runs, 16) AS max_active_runs, \
                        (SELECT count(*) FROM dag_run r \
                          WHERE r.dag_id = dr.dag_id AND r.state = 'running' \
                            AND r.backfill_id IS NOT DISTINCT FROM dr.backfill_id) AS running, \
                        row_number() OVER (PARTITION BY dr.dag_id, dr.backfill_id \
                                           ORDER BY b.sort_ordinal NULLS FIRST, dr.run_after, dr.id) AS rank \
                   FROM dag_run dr \
                   JOIN dag d ON d.dag_id = dr.dag_id AND NOT d.is_paused AND NOT d.is_stale \
                   LEFT JOIN backfill_dag_run b ON b.dag_run_id = dr.id \
                   LEFT JOIN backfill bf ON bf.id = dr.backfill_id \
                  WHERE dr.state = 'queued' AND dr.run_after <= $1 \
                    AND coalesce(bf.is_paused, false) = false) AS q \
          WHERE q.rank <= q.max_active_runs AND q.running < q.max_active_runs \
          ORDER BY q.sort_ordinal NULLS FIRST, q.run_after, q.id",
    )
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(QueuedRun {
                id: row.try_get("id")?,
                dag_id: row.try_get("dag_id")?,
                run_id: row.try_get("run_id")?,
                run_after: row.try_get("run_after")?,
                logical_date: row.try_get("logical_date")?,
                backfill_id: row.try_get("backfill_id")?,
                sort_ordinal: row.try_get("sort_ordinal")?,
                max_active_runs: row.try_get("max_active_runs")?,
                running: row.try_get("running")?,
            })
        })
        .collect()
}

/// queued -> running, `start_date` now. Answers how many were still queued.
///
/// # Errors
/// The database's errors.
pub async fn start(db: &mut PgConnection, ids: &[i32], now: DateTime<Utc>) -> Result<u64, Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query(
        "UPDATE dag_run SET state = 'running', start_date = $2, updated_at = $2, \
                last_scheduling_decision = NULL \
          WHERE id = ANY($1) AND state = 'queued'",
    )
    .bind(ids)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

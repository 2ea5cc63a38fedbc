//! Leaving `running`: the bodies of `PATCH task-instances/{id}/state`.
//!
//! Each function changes the row only if it is `running`, writes Airflow's log row with the new state, and answers
//! the row as it was before. The caller owns the transaction: what else belongs to the change comes in it.

use chrono::{DateTime, Utc};
use model::TaskInstanceState;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Error, history};

/// The task instance before the change.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Before {
    pub changed: bool,
    pub state: Option<String>,
    pub dag_id: String,
    pub task_id: String,
    pub run_id: String,
    pub map_index: i32,
    pub try_number: i32,
    pub max_tries: i32,
    pub fail_fast: bool,
}

/// How a try ended.
#[derive(Debug, Clone)]
pub struct End<'a> {
    pub state: TaskInstanceState,
    pub end_date: DateTime<Utc>,
    /// `None` leaves the name as it is.
    pub rendered_map_index: Option<Option<&'a str>>,
}

/// Why and when to try again.
#[derive(Debug, Clone)]
pub struct Retry<'a> {
    pub end_date: DateTime<Utc>,
    pub rendered_map_index: Option<Option<&'a str>>,
    pub delay_seconds: Option<f64>,
    pub reason: Option<&'a str>,
}

/// What wakes a deferred task instance, and how it goes on then. Keyword arguments are JSON as text.
#[derive(Debug, Clone)]
pub struct Deferral<'a> {
    pub classpath: &'a str,
    pub trigger_kwargs: &'a str,
    pub queue: Option<&'a str>,
    pub timeout: Option<DateTime<Utc>>,
    pub next_method: &'a str,
    pub next_kwargs: &'a str,
}

/// One change of a running task instance: the row is locked and read, changed by `$set` if it runs, and logged.
/// $1 is its id, $2 now, $3 the new state; the statement's own parameters follow.
macro_rules! change {
    ($before:literal, $set:literal) => {
        concat!(
            "WITH ti AS ( \
               SELECT ti.id, ti.state, ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number, \
                      ti.max_tries, ti.hostname, d.owners, d.fail_fast \
                 FROM task_instance ti \
                 JOIN dag d ON d.dag_id = ti.dag_id \
                WHERE ti.id = $1 \
                  FOR UPDATE OF ti \
             ), ",
            $before,
            "changed AS ( \
               UPDATE task_instance t SET state = $3, updated_at = $2, ",
            $set,
            "    FROM ti \
                WHERE t.id = ti.id AND ti.state = 'running' \
               RETURNING t.dag_id \
             ), logged AS ( \
               INSERT INTO log (dttm, dag_id, task_id, map_index, event, logical_date, run_id, owner, extra, try_number) \
               SELECT $2, ti.dag_id, ti.task_id, ti.map_index, $3, dr.logical_date, ti.run_id, ti.owners, \
                      CASE WHEN coalesce(ti.hostname, '') <> '' \
                           THEN '{\"host_name\": ' || to_json(ti.hostname)::text || '}' END, \
                      ti.try_number \
                 FROM ti \
                 JOIN changed c ON c.dag_id = ti.dag_id \
                 JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
             ) \
             SELECT EXISTS (SELECT 1 FROM changed) AS changed, ti.state, ti.dag_id, ti.task_id, ti.run_id, \
                    ti.map_index, ti.try_number, ti.max_tries, ti.fail_fast \
               FROM ti"
        )
    };
}

/// Ends a try as success, failed, skipped, removed or upstream_failed.
///
/// # Errors
/// The database's errors.
pub async fn end(
    db: &mut PgConnection,
    id: Uuid,
    end: &End<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Before>, Error> {
    Ok(sqlx::query_as(change!(
        "",
        "end_date = $4, duration = extract(epoch FROM ($4 - t.start_date)), \
         next_method = NULL, next_kwargs = 'null'::jsonb, \
         rendered_map_index = CASE WHEN $5 THEN $6 ELSE t.rendered_map_index END "
    ))
    .bind(id)
    .bind(now)
    .bind(end.state.as_str())
    .bind(end.end_date)
    .bind(end.rendered_map_index.is_some())
    .bind(end.rendered_map_index.flatten())
    .fetch_optional(db)
    .await?)
}

/// Ends a try that is followed by another: the row is copied to `task_instance_history` as failed, its reschedules
/// go, and it gets a new id, which locks out whoever still holds the old one.
///
/// # Errors
/// The database's errors.
pub async fn retry(
    db: &mut PgConnection,
    id: Uuid,
    retry: &Retry<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Before>, Error> {
    // The state changes last, since a log row belongs to that change; until then the row stays locked.
    let running: Option<Option<String>> = sqlx::query_scalar(
        "UPDATE task_instance t \
            SET end_date = $2, duration = extract(epoch FROM ($2 - t.start_date)), \
                rendered_map_index = CASE WHEN $3 THEN $4 ELSE t.rendered_map_index END, \
                retry_delay_override = $5, retry_reason = $6 \
          WHERE id = $1 AND state = 'running' \
         RETURNING state",
    )
    .bind(id)
    .bind(retry.end_date)
    .bind(retry.rendered_map_index.is_some())
    .bind(retry.rendered_map_index.flatten())
    .bind(retry.delay_seconds)
    .bind(retry.reason)
    .fetch_optional(&mut *db)
    .await?;
    let mut current = id;
    if running.is_some() {
        for (_, new) in history::archive(&mut *db, &[id]).await? {
            current = new;
        }
    }
    Ok(sqlx::query_as(change!(
        "",
        "next_method = NULL, next_kwargs = 'null'::jsonb "
    ))
    .bind(current)
    .bind(now)
    .bind(TaskInstanceState::UpForRetry.as_str())
    .fetch_optional(db)
    .await?)
}

/// Whether the try `id` was ended for a retry by exactly this request, so that a repeat of it is no error.
///
/// # Errors
/// The database's errors.
pub async fn was_retried_at(
    db: &mut PgConnection,
    id: Uuid,
    end_date: DateTime<Utc>,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM task_instance_history \
                         WHERE task_instance_id = $1 AND end_date = $2 AND state = 'failed')",
    )
    .bind(id)
    .bind(end_date)
    .fetch_one(db)
    .await?)
}

/// Hands a task instance to a triggerer.
///
/// # Errors
/// The database's errors.
pub async fn defer(
    db: &mut PgConnection,
    id: Uuid,
    deferral: &Deferral<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Before>, Error> {
    Ok(sqlx::query_as(change!(
        "made AS ( \
           INSERT INTO trigger (classpath, kwargs, created_date, queue) \
           SELECT $4, $5, $2, $6 FROM ti WHERE ti.state = 'running' \
           RETURNING id \
         ), ",
        "trigger_id = (SELECT id FROM made), trigger_timeout = $7, next_method = $8, next_kwargs = $9::jsonb "
    ))
    .bind(id)
    .bind(now)
    .bind(TaskInstanceState::Deferred.as_str())
    .bind(deferral.classpath)
    .bind(deferral.trigger_kwargs)
    .bind(deferral.queue)
    .bind(deferral.timeout)
    .bind(deferral.next_method)
    .bind(deferral.next_kwargs)
    .fetch_optional(db)
    .await?)
}

/// Puts a sensor back until `reschedule_date`.
///
/// # Errors
/// The database's errors.
pub async fn reschedule(
    db: &mut PgConnection,
    id: Uuid,
    end_date: DateTime<Utc>,
    reschedule_date: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<Before>, Error> {
    // airflow: TaskReschedule(ti_id, utcnow(), end_date, reschedule_date): its start is the server's now, although
    // that is later than its end.
    Ok(sqlx::query_as(change!(
        "poke AS ( \
           INSERT INTO task_reschedule (ti_id, start_date, end_date, duration, reschedule_date) \
           SELECT ti.id, $2, $4, trunc(extract(epoch FROM ($4 - $2)))::integer, $5 \
             FROM ti WHERE ti.state = 'running' \
         ), ",
        "end_date = $4, duration = extract(epoch FROM ($4 - t.start_date)), \
         next_method = NULL, next_kwargs = 'null'::jsonb "
    ))
    .bind(id)
    .bind(now)
    .bind(TaskInstanceState::UpForReschedule.as_str())
    .bind(end_date)
    .bind(reschedule_date)
    .fetch_optional(db)
    .await?)
}

/// Parks a task instance until a person answers.
///
/// # Errors
/// The database's errors.
pub async fn await_input(
    db: &mut PgConnection,
    id: Uuid,
    deferral: &Parked<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Before>, Error> {
    let state = if deferral.is_answered {
        TaskInstanceState::Scheduled
    } else {
        TaskInstanceState::AwaitingInput
    };
    Ok(sqlx::query_as(change!(
        "",
        "trigger_id = NULL, trigger_timeout = $4, next_method = $5, next_kwargs = $6::jsonb, \
         scheduled_dttm = CASE WHEN $3 = 'scheduled' THEN $2 ELSE t.scheduled_dttm END "
    ))
    .bind(id)
    .bind(now)
    .bind(state.as_str())
    .bind(deferral.timeout)
    .bind(deferral.next_method)
    .bind(deferral.next_kwargs)
    .fetch_optional(db)
    .await?)
}

/// How a task instance goes on after a person's answer; with the answer in `next_kwargs` when there is one already.
#[derive(Debug, Clone)]
pub struct Parked<'a> {
    pub is_answered: bool,
    pub timeout: Option<DateTime<Utc>>,
    pub next_method: &'a str,
    pub next_kwargs: &'a str,
}

/// Skips task instances of the caller's run that neither run nor ended; the number skipped, or `None` when the
/// caller does not exist. `airflow: routes.task_instances.ti_skip_downstream`
///
/// # Errors
/// The database's errors.
pub async fn skip_downstream(
    db: &mut PgConnection,
    id: Uuid,
    task_ids: &[String],
    map_indexes: &[i32],
    now: DateTime<Utc>,
) -> Result<Option<i64>, Error> {
    let skipped: (bool, i64) = sqlx::query_as(
        "WITH me AS ( \
           SELECT dag_id, run_id FROM task_instance WHERE id = $1 \
         ), skipped AS ( \
           UPDATE task_instance t \
              SET state = 'skipped', start_date = $4, end_date = $4, updated_at = $4 \
             FROM me, unnest($2::text[], $3::integer[]) AS wanted (task_id, map_index) \
            WHERE t.dag_id = me.dag_id AND t.run_id = me.run_id \
              AND t.task_id = wanted.task_id AND t.map_index = wanted.map_index \
              AND (t.state IS NULL OR t.state NOT IN ('running', 'success', 'failed')) \
           RETURNING t.id \
         ) \
         SELECT EXISTS (SELECT 1 FROM me), (SELECT count(*) FROM skipped)",
    )
    .bind(id)
    .bind(task_ids)
    .bind(map_indexes)
    .bind(now)
    .fetch_one(db)
    .await?;
    Ok(skipped.0.then_some(skipped.1))
}

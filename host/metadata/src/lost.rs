//! Tries that ended without a report: finding them; [`settle`] writes what the scheduler decided about each.

use chrono::{DateTime, TimeDelta, Utc};
use model::{TaskInstanceKey, TaskInstanceState};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{Error, rows};

mod settle;

pub(crate) use settle::{log, logged_since_start, send_back};
pub use settle::{note_redelivery, settle, was_redelivered};

/// A task instance in the hands of the executor, as far as its try's fate is concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct TryFacts {
    pub id: Uuid,
    pub key: TaskInstanceKey,
    pub state: TaskInstanceState,
    pub try_number: i32,
    pub max_tries: i32,
    pub logical_date: Option<DateTime<Utc>>,
    pub owner: Option<String>,
    pub fail_fast: bool,
    /// How often the platform lost this try already, and the three before it: as many as are free
    /// (`scheduler::lost::PLATFORM_FAULTS`), since one that ran ends its try.
    pub platform_faults: i64,
}

/// The columns and joins of [`TryFacts`], with the condition that picks the tries.
macro_rules! facts_where {
    ($condition:literal) => {
        concat!(
            "SELECT ti.id, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.state, ti.try_number, \
                    ti.max_tries, dr.logical_date, d.owners, d.fail_fast, \
                    (SELECT coalesce(sum(q.count), 0)::bigint FROM modalflow.requeue q \
                      WHERE q.dag_id = ti.dag_id AND q.run_id = ti.run_id AND q.task_id = ti.task_id \
                        AND q.map_index = ti.map_index AND q.try_number >= ti.try_number - 3) AS platform_faults \
               FROM task_instance ti \
               JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
               JOIN dag d ON d.dag_id = ti.dag_id ",
            $condition
        )
    };
}

/// The tries of the intents that are still queued, running or restarting, with the intent: their calls ended, and
/// nobody reported.
///
/// # Errors
/// The database's errors.
pub async fn unreported(
    db: &mut PgConnection,
    dispatch_ids: &[Uuid],
) -> Result<Vec<(Uuid, TryFacts)>, Error> {
    // By intent, not by task instance: a rescheduled one keeps its id and may be out with the next call already. One that
    // was cleared while it ran has a new id, and is known by its call.
    let intents: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT x.dispatch_id, coalesce(cleared.id, x.ti_id) FROM modalflow.dispatch x \
           LEFT JOIN task_instance cleared \
             ON cleared.state = 'restarting' AND cleared.external_executor_id = x.call_id \
          WHERE x.dispatch_id = ANY($1)",
    )
    .bind(dispatch_ids)
    .fetch_all(&mut *db)
    .await?;
    let ids: Vec<Uuid> = intents.iter().map(|(_, ti_id)| *ti_id).collect();
    // FOR UPDATE waits for a report that is being committed right now, and then sees its state.
    let rows = sqlx::query(facts_where!(
        "WHERE ti.id = ANY($1) AND ti.state IN ('queued', 'running', 'restarting') \
         ORDER BY ti.id FOR UPDATE OF ti"
    ))
    .bind(&ids)
    .fetch_all(db)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let facts = facts(row)?;
        if let Some((dispatch_id, _)) = intents.iter().find(|(_, ti_id)| *ti_id == facts.id) {
            found.push((*dispatch_id, facts));
        }
    }
    Ok(found)
}

/// Running tries that have not sent a heartbeat for `timeout`.
/// `airflow: SchedulerJobRunner._find_task_instances_without_heartbeats`
///
/// # Errors
/// The database's errors.
pub async fn without_heartbeat(
    db: &mut PgConnection,
    timeout: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Vec<TryFacts>, Error> {
    let rows = sqlx::query(facts_where!(
        "WHERE ti.state IN ('running', 'restarting') AND ti.last_heartbeat_at < $1 \
         ORDER BY ti.id FOR UPDATE OF ti SKIP LOCKED"
    ))
    .bind(now - timeout)
    .fetch_all(db)
    .await?;
    rows.iter().map(facts).collect()
}

/// Tries that were queued before `before` and are queued still.
///
/// # Errors
/// The database's errors.
pub(crate) async fn queued_before(
    db: &mut PgConnection,
    before: DateTime<Utc>,
) -> Result<Vec<TryFacts>, Error> {
    let rows = sqlx::query(facts_where!(
        "WHERE ti.state = 'queued' AND ti.queued_dttm < $1 ORDER BY ti.id FOR UPDATE OF ti SKIP LOCKED"
    ))
    .bind(before)
    .fetch_all(db)
    .await?;
    rows.iter().map(facts).collect()
}

/// Queued tries without an intent to start them: somebody else queued them, or their intent was lost.
/// They go back to scheduled, and so to the executor.
///
/// # Errors
/// The database's errors.
pub async fn requeue_without_intent(
    db: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let done = sqlx::query(
        "UPDATE task_instance ti SET state = 'scheduled', queued_dttm = NULL, queued_by_job_id = NULL, \
                external_executor_id = NULL, updated_at = $1 \
          WHERE ti.state = 'queued' \
            AND NOT EXISTS (SELECT FROM modalflow.dispatch x WHERE x.ti_id = ti.id)",
    )
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

fn facts(row: &sqlx::postgres::PgRow) -> Result<TryFacts, Error> {
    let id: Uuid = row.try_get("id")?;
    Ok(TryFacts {
        id,
        key: TaskInstanceKey {
            dag_id: row.try_get("dag_id")?,
            run_id: row.try_get("run_id")?,
            task_id: row.try_get("task_id")?,
            map_index: row.try_get("map_index")?,
        },
        state: rows::named(row, "task_instance", "state", &id)?,
        try_number: row.try_get("try_number")?,
        max_tries: row.try_get("max_tries")?,
        logical_date: row.try_get("logical_date")?,
        owner: row.try_get("owners")?,
        fail_fast: row.try_get("fail_fast")?,
        platform_faults: row.try_get("platform_faults")?,
    })
}

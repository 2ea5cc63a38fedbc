//! The queue of callbacks: each goes out as one function call. Those of one run go one after the other, in the order in
//! which they were asked for, as in Airflow's dag-processor.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::Error;
use crate::dispatch::OpenCall;

/// How often a callback whose call ended before any worker claimed it goes out again.
const REPEATS: i32 = 5;

/// A callback to be started.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The idempotency key of the spawn.
    pub dispatch_id: Uuid,
    pub callback_id: Uuid,
    /// Spawns of this intent that failed before.
    pub failures: i32,
}

/// Whether any callback has yet to end.
///
/// # Errors
/// The database's errors.
pub async fn any(db: &mut PgConnection) -> Result<bool, Error> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM modalflow.callback_call)")
            .fetch_one(db)
            .await?,
    )
}

/// Takes callbacks in that nobody has looked at yet. One that can't be read is ended at once, and named in the answer.
///
/// # Errors
/// The database's errors.
pub async fn take_in(db: &mut PgConnection) -> Result<Vec<String>, Error> {
    let new: Vec<(Uuid, Value)> = sqlx::query_as(
        "SELECT c.id, c.data FROM modalflow.callback_call x JOIN callback c ON c.id = x.callback_id \
          WHERE x.dispatch_id IS NULL",
    )
    .fetch_all(&mut *db)
    .await?;
    let mut unreadable = Vec::new();
    for (callback_id, data) in new {
        let Some((dag_id, run_id)) = about(&data) else {
            let why = format!("callback {callback_id} does not say which run it is about");
            give_up(db, callback_id, &why).await?;
            unreadable.push(why);
            continue;
        };
        sqlx::query(
            "UPDATE modalflow.callback_call SET dispatch_id = $2, dag_id = $3, run_id = $4 \
              WHERE callback_id = $1 AND dispatch_id IS NULL",
        )
        .bind(callback_id)
        .bind(Uuid::now_v7())
        .bind(dag_id)
        .bind(run_id)
        .execute(&mut *db)
        .await?;
        // airflow: SchedulerJobRunner._enqueue_executor_callbacks
        sqlx::query(
            "UPDATE callback SET state = 'queued' \
              WHERE id = $1 AND type = 'executor' AND state = 'pending'",
        )
        .bind(callback_id)
        .execute(&mut *db)
        .await?;
    }
    Ok(unreadable)
}

/// DAG and run of a callback's `data`. `run_id` is the row's key for callbacks of deadlines.
fn about(data: &Value) -> Option<(String, String)> {
    let data = data.get("__var").unwrap_or(data);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(request) = data.get("req_data").and_then(Value::as_str) {
        let request: Value = serde_json::from_str(request).ok()?;
        let of = request.get("ti").unwrap_or(&request);
        return Some((text(&of["dag_id"])?, text(&of["run_id"])?));
    }
    Some((text(&data["dag_id"])?, text(&data["dag_run_id"])?))
}

/// Callbacks that may go out now, at most so many that `at_once` are out together: the oldest of each run, unless one of
/// that run is out.
///
/// # Errors
/// The database's errors.
pub async fn unsent(
    db: &mut PgConnection,
    at_once: i64,
    now: DateTime<Utc>,
) -> Result<Vec<Intent>, Error> {
    let rows: Vec<(Uuid, Uuid, i32)> = sqlx::query_as(
        "SELECT dispatch_id, callback_id, failures \
           FROM (SELECT DISTINCT ON (x.dag_id, x.run_id) x.dispatch_id, x.callback_id, x.failures, x.call_id, \
                        x.not_before, c.priority_weight, c.created_at \
                   FROM modalflow.callback_call x JOIN callback c ON c.id = x.callback_id \
                  WHERE x.dispatch_id IS NOT NULL \
                  ORDER BY x.dag_id, x.run_id, x.call_id IS NULL, c.created_at, c.id) AS first \
          WHERE call_id IS NULL AND (not_before IS NULL OR not_before <= $1) \
          ORDER BY priority_weight DESC, created_at, callback_id \
          LIMIT greatest(0, $2 - (SELECT count(*) FROM modalflow.callback_call WHERE call_id IS NOT NULL))",
    )
    .bind(now)
    .bind(at_once)
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(dispatch_id, callback_id, failures)| Intent {
            dispatch_id,
            callback_id,
            failures,
        })
        .collect())
}

/// Stores the calls that were acknowledged.
///
/// # Errors
/// The database's errors.
pub async fn sent(
    pool: &PgPool,
    calls: &[(Uuid, String)],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for (dispatch_id, call_id) in calls {
        sqlx::query(
            "UPDATE modalflow.callback_call SET call_id = $2, spawned_at = $3 \
              WHERE dispatch_id = $1 AND call_id IS NULL",
        )
        .bind(dispatch_id)
        .bind(call_id)
        .bind(now)
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// A spawn failed: it is tried again after `not_before`.
///
/// # Errors
/// The database's errors.
pub async fn postpone(
    pool: &PgPool,
    dispatch_id: Uuid,
    not_before: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE modalflow.callback_call SET failures = failures + 1, not_before = $2 \
          WHERE dispatch_id = $1 AND call_id IS NULL",
    )
    .bind(dispatch_id)
    .bind(not_before)
    .execute(pool)
    .await?;
    Ok(())
}

/// How many callbacks of a run have yet to end.
///
/// # Errors
/// The database's errors.
pub async fn left_of_run(pool: &PgPool, dag_id: &str, run_id: &str) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM modalflow.callback_call WHERE dag_id = $1 AND run_id = $2",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_one(pool)
    .await?)
}

/// Calls of callbacks that were sent and whose end was not handled yet.
///
/// # Errors
/// The database's errors.
pub async fn open_calls(db: &mut PgConnection) -> Result<Vec<OpenCall>, Error> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT dispatch_id, call_id FROM modalflow.callback_call \
          WHERE call_id IS NOT NULL ORDER BY spawned_at",
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(dispatch_id, call_id)| OpenCall {
            dispatch_id,
            call_id,
        })
        .collect())
}

/// A call ended, for the reason `why`. One that was never claimed goes out again, a few times; one that was claimed and
/// not reported is not repeated, since its callback has begun: it counts as failed. Reported ones are gone already.
///
/// # Errors
/// The database's errors.
pub async fn call_ended(
    db: &mut PgConnection,
    dispatch_id: Uuid,
    why: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let repeated = sqlx::query(
        "UPDATE modalflow.callback_call SET dispatch_id = $2, call_id = NULL, spawned_at = NULL, \
                repeats = repeats + 1, not_before = $3 \
          WHERE dispatch_id = $1 AND claim IS NULL AND repeats < $4",
    )
    .bind(dispatch_id)
    .bind(Uuid::now_v7())
    .bind(now + TimeDelta::seconds(1))
    .bind(REPEATS)
    .execute(&mut *db)
    .await?;
    if repeated.rows_affected() == 1 {
        return Ok(());
    }
    let lost: Option<Uuid> = sqlx::query_scalar(
        "SELECT callback_id FROM modalflow.callback_call WHERE dispatch_id = $1 FOR UPDATE",
    )
    .bind(dispatch_id)
    .fetch_optional(&mut *db)
    .await?;
    match lost {
        Some(callback_id) => give_up(db, callback_id, why).await,
        None => Ok(()),
    }
}

/// Ends callbacks that were claimed before `before` and never heard of again: their worker is gone, and so is its call.
///
/// # Errors
/// The database's errors.
pub async fn give_up_silent(db: &mut PgConnection, before: DateTime<Utc>) -> Result<(), Error> {
    let silent: Vec<Uuid> = sqlx::query_scalar(
        "SELECT callback_id FROM modalflow.callback_call WHERE claimed_at < $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(before)
    .fetch_all(&mut *db)
    .await?;
    for callback_id in silent {
        give_up(db, callback_id, "its worker was not heard of again").await?;
    }
    Ok(())
}

/// Ends a callback that won't run, or may have run by half; a row in `log` tells people.
pub(super) async fn give_up(
    db: &mut PgConnection,
    callback_id: Uuid,
    why: &str,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO log (dttm, dag_id, run_id, event, owner, extra) \
         SELECT now(), x.dag_id, \
                coalesce((SELECT run_id FROM dag_run WHERE id::text = x.run_id AND dag_id = x.dag_id), x.run_id), \
                'callback failed', 'scheduler', $2 \
           FROM modalflow.callback_call x WHERE x.callback_id = $1 AND x.dag_id IS NOT NULL",
    )
    .bind(callback_id)
    .bind(why)
    .execute(&mut *db)
    .await?;
    end(db, callback_id, "failed", Some(why)).await
}

/// Takes a callback off the queue. The dag-processor's rows go, as in Airflow; those of deadlines stay beside their deadline.
pub(super) async fn end(
    db: &mut PgConnection,
    callback_id: Uuid,
    state: &str,
    output: Option<&str>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE callback SET state = $2, output = $3 \
          WHERE id = $1 AND type = 'executor' AND state IN ('pending', 'queued', 'running')",
    )
    .bind(callback_id)
    .bind(state)
    .bind(output)
    .execute(&mut *db)
    .await?;
    sqlx::query("DELETE FROM callback WHERE id = $1 AND type = 'dag_processor'")
        .bind(callback_id)
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM modalflow.callback_call WHERE callback_id = $1")
        .bind(callback_id)
        .execute(db)
        .await?;
    Ok(())
}

//! Entering `running`: `PATCH task-instances/{id}/run`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// Who asks to start a try, as the worker's request says it.
#[derive(Debug, Clone)]
pub struct Starter<'a> {
    pub hostname: &'a str,
    pub unixname: &'a str,
    pub pid: i32,
    pub start_date: DateTime<Utc>,
}

/// The task instance as it was before the request, and what its worker must know.
#[derive(Debug, sqlx::FromRow)]
pub struct Start {
    /// Whether this request started the try.
    pub started: bool,
    /// The state before.
    pub state: Option<String>,
    pub dag_id: String,
    pub task_id: String,
    pub run_id: String,
    pub map_index: i32,
    pub try_number: i32,
    pub max_tries: i32,
    pub start_date: Option<DateTime<Utc>>,
    pub next_method: Option<String>,
    pub next_kwargs: Option<String>,
    /// Comes back from a deferral with arguments, so that `start_date` stays that of the first start.
    pub resumed: bool,
    pub hostname: Option<String>,
    pub unixname: Option<String>,
    pub pid: Option<i32>,
    pub task_reschedule_count: i64,
    pub xcom_keys: Vec<String>,
    pub has_consumed_asset_events: bool,
    #[sqlx(flatten)]
    pub dag_run: super::dag_runs::DagRunRow,
}

/// Starts the try `id` if it is queued or restarting, writes Airflow's `running` log row, and answers what was
/// found; `None` when there is no such task instance. `airflow: routes.task_instances.ti_run`
///
/// # Errors
/// The database's errors.
pub async fn start_task_instance(
    db: &mut PgConnection,
    id: Uuid,
    starter: &Starter<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Start>, Error> {
    // FOR UPDATE takes the row that Airflow's own API would take, so that a clear in the UI waits for us or we
    // for it, and the state compared is the one written over.
    let start = sqlx::query_as(concat!(
        "WITH ti AS ( \
           SELECT ti.id, ti.state, ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number, ti.max_tries, \
                  ti.start_date, ti.next_method, ti.next_kwargs::text AS next_kwargs, \
                  ti.hostname, ti.unixname, ti.pid, d.owners, \
                  coalesce(ti.next_kwargs::text, 'null') NOT IN ('null', '{}', '[]', '\"\"') AS resumed \
             FROM task_instance ti \
             JOIN dag d ON d.dag_id = ti.dag_id \
            WHERE ti.id = $1 \
              FOR UPDATE OF ti \
         ), started AS ( \
           UPDATE task_instance t \
              SET state = 'running', hostname = $2, unixname = $3, pid = $4, end_date = NULL, \
                  start_date = CASE WHEN ti.resumed THEN t.start_date ELSE $5 END, \
                  last_heartbeat_at = $6, retry_delay_override = NULL, retry_reason = NULL, updated_at = $6 \
             FROM ti \
            WHERE t.id = ti.id AND ti.state IN ('queued', 'restarting') \
           RETURNING t.id \
         ), logged AS ( \
           INSERT INTO log (dttm, dag_id, task_id, map_index, event, logical_date, run_id, owner, extra, try_number) \
           SELECT $6, ti.dag_id, ti.task_id, ti.map_index, 'running', dr.logical_date, ti.run_id, ti.owners, \
                  CASE WHEN ti.resumed THEN $8 ELSE $7 END, ti.try_number \
             FROM ti \
             JOIN started s ON s.id = ti.id \
             JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
         ) \
         SELECT EXISTS (SELECT 1 FROM started) AS started, \
                ti.state, ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number, ti.max_tries, \
                ti.start_date, ti.next_method, ti.next_kwargs, ti.resumed, ti.hostname, ti.unixname, ti.pid, \
                (SELECT count(*) FROM task_reschedule r WHERE r.ti_id = ti.id) AS task_reschedule_count, \
                ARRAY(SELECT x.key FROM xcom x \
                       WHERE x.dag_id = ti.dag_id AND x.task_id = ti.task_id AND x.run_id = ti.run_id \
                         AND (ti.map_index < 0 OR x.map_index = ti.map_index) \
                         AND coalesce(ti.next_method, '') = '' \
                       ORDER BY x.map_index, x.key) AS xcom_keys, \
                EXISTS (SELECT 1 FROM dagrun_asset_event e WHERE e.dag_run_id = dr.id) \
                  AS has_consumed_asset_events, ",
        super::dag_runs::dag_run_columns!(),
        "  FROM ti \
           JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id"
    ))
    .bind(id)
    .bind(starter.hostname)
    .bind(starter.unixname)
    .bind(starter.pid)
    .bind(starter.start_date)
    .bind(now)
    .bind(host_extra(starter.hostname))
    .bind(resumed_extra(starter))
    .fetch_optional(db)
    .await?;
    Ok(start)
}

/// Whether the last start of a resumed try came from exactly this request: `start_date` in the row is that of the
/// first start then, so the one of the request is kept in the extra of its log row.
///
/// # Errors
/// The database's errors.
pub async fn is_last_resumption(
    db: &mut PgConnection,
    start: &Start,
    starter: &Starter<'_>,
) -> Result<bool, Error> {
    let last: Option<Option<String>> = sqlx::query_scalar(
        "SELECT extra FROM log \
          WHERE dag_id = $1 AND task_id = $2 AND run_id = $3 AND map_index = $4 AND try_number = $5 \
            AND event = 'running' \
          ORDER BY id DESC LIMIT 1",
    )
    .bind(&start.dag_id)
    .bind(&start.task_id)
    .bind(&start.run_id)
    .bind(start.map_index)
    .bind(start.try_number)
    .fetch_optional(db)
    .await?;
    Ok(last.flatten() == Some(resumed_extra(starter)))
}

/// `airflow: json.dumps({"host_name": hostname}) if hostname else None`
pub(super) fn host_extra(hostname: &str) -> Option<String> {
    (!hostname.is_empty())
        .then(|| format!("{{\"host_name\": {}}}", serde_json::Value::from(hostname)))
}

fn resumed_extra(starter: &Starter<'_>) -> String {
    format!(
        "{{\"host_name\": {}, \"start_date\": \"{}\"}}",
        serde_json::Value::from(starter.hostname),
        starter.start_date.to_rfc3339()
    )
}

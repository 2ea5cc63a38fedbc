//! Deadlines of runs: made with the run, gone with its success in time, missed otherwise.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use scheduler::deadlines::{Alert, Reference};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::Error;

/// The run that deadlines are made for.
#[derive(Debug, Clone, Copy)]
pub struct NewRun<'a> {
    pub id: i32,
    pub dag_id: &'a str,
    pub dag_version_id: Uuid,
    pub logical_date: Option<DateTime<Utc>>,
    pub queued_at: DateTime<Utc>,
}

/// Writes a deadline and its callback for each alert of the DAG version. An alert that can't be evaluated is left out;
/// a DAG with one is refused when it is taken in. `airflow: SerializedDAG._process_dagrun_deadline_alerts`
///
/// # Errors
/// The database's errors.
pub async fn create(
    db: &mut PgConnection,
    run: &NewRun<'_>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let alerts: Vec<(Uuid, Value, Value, Value)> = sqlx::query_as(
        "SELECT a.id, a.reference, a.interval, a.callback_def \
           FROM deadline_alert a JOIN serialized_dag s ON s.id = a.serialized_dag_id \
          WHERE s.dag_version_id = $1 ORDER BY a.id",
    )
    .bind(run.dag_version_id)
    .fetch_all(&mut *db)
    .await?;
    for (alert_id, reference, interval, callback) in alerts {
        let Ok(alert) = Alert::read(&reference, &interval) else {
            continue;
        };
        let durations = match alert.reference {
            Reference::AverageRuntime { max_runs, .. } => {
                last_durations(db, run.dag_id, max_runs).await?
            }
            Reference::FixedDatetime(_)
            | Reference::DagRunLogicalDate
            | Reference::DagRunQueuedAt => Vec::new(),
        };
        if let Some(time) = alert.time(run.logical_date, run.queued_at, &durations, now) {
            insert(db, run, alert_id, time, &callback, now).await?;
        }
    }
    Ok(())
}

async fn last_durations(
    db: &mut PgConnection,
    dag_id: &str,
    max_runs: i64,
) -> Result<Vec<f64>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT extract(epoch FROM end_date - start_date)::float8 FROM dag_run \
          WHERE dag_id = $1 AND state = 'success' AND start_date IS NOT NULL AND end_date IS NOT NULL \
          ORDER BY logical_date DESC LIMIT $2",
    )
    .bind(dag_id)
    .bind(max_runs)
    .fetch_all(db)
    .await?)
}

/// `airflow: Deadline.__init__, Callback.create_from_sdk_def`
async fn insert(
    db: &mut PgConnection,
    run: &NewRun<'_>,
    alert_id: Uuid,
    time: DateTime<Utc>,
    callback: &Value,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let class = callback["__classname__"].as_str().unwrap_or_default();
    let kind = match class.rsplit('.').next() {
        Some("AsyncCallback") => "triggerer",
        Some("SyncCallback") => "executor",
        _ => return Ok(()),
    };
    let mut data = json!({"dag_id": run.dag_id, "prefix": "deadline_alerts"});
    for (name, value) in callback["__data__"].as_object().into_iter().flatten() {
        data[name] = value.clone();
    }
    let callback_id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO callback (id, type, fetch_method, data, bundle_name, state, priority_weight, created_at) \
         SELECT $1, $2, 'import_path', $3, d.bundle_name, 'scheduled', 1, $4 FROM dag d WHERE d.dag_id = $5",
    )
    .bind(callback_id)
    .bind(kind)
    .bind(wrapped(data))
    .bind(now)
    .bind(run.dag_id)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO deadline (id, created_at, last_updated_at, dagrun_id, deadline_time, missed, callback_id, \
                deadline_alert_id) \
         VALUES ($1, $2, $2, $3, $4, false, $5, $6)",
    )
    .bind(Uuid::now_v7())
    .bind(now)
    .bind(run.id)
    .bind(time)
    .bind(callback_id)
    .bind(alert_id)
    .execute(db)
    .await?;
    Ok(())
}

/// A run succeeded: deadlines that it kept go, with their callbacks. `airflow: Deadline.prune_deadlines`
///
/// # Errors
/// The database's errors.
pub async fn prune(db: &mut PgConnection, dag_run_id: i32) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM callback c USING deadline d JOIN dag_run dr ON dr.id = d.dagrun_id \
          WHERE c.id = d.callback_id AND d.dagrun_id = $1 AND NOT d.missed \
            AND dr.end_date <= d.deadline_time",
    )
    .bind(dag_run_id)
    .execute(db)
    .await?;
    Ok(())
}

/// Marks deadlines that have passed as missed and asks for their callbacks: in a worker, or in the triggerer. Answers
/// how many. `airflow: SchedulerJobRunner._run_scheduler_loop, Deadline.handle_miss`
///
/// # Errors
/// The database's errors.
pub async fn miss(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, Error> {
    let passed = sqlx::query(
        "SELECT d.id, d.dagrun_id, d.deadline_time, c.id AS callback_id, c.type, c.data \
           FROM deadline d JOIN callback c ON c.id = d.callback_id \
          WHERE NOT d.missed AND d.deadline_time < $1 AND d.dagrun_id IS NOT NULL \
          ORDER BY d.deadline_time, d.id \
            FOR UPDATE OF d SKIP LOCKED",
    )
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    let mut contexts: HashMap<i32, Value> = HashMap::new();
    for row in &passed {
        let (id, dag_run_id): (Uuid, i32) = (row.try_get("id")?, row.try_get("dagrun_id")?);
        let callback_id: Uuid = row.try_get("callback_id")?;
        let time: DateTime<Utc> = row.try_get("deadline_time")?;
        let run = match contexts.get(&dag_run_id) {
            Some(run) => run.clone(),
            None => {
                let run = run_response(db, dag_run_id).await?;
                contexts.insert(dag_run_id, run.clone());
                run
            }
        };
        let mut data = crate::callbacks::claims::plain(row.try_get("data")?);
        let dag_id = run["dag_id"].clone();
        let kwargs = data["kwargs"].take();
        let mut kwargs = if kwargs.is_object() {
            kwargs
        } else {
            json!({})
        };
        kwargs["context"] = json!({"dag_run": run, "deadline": {"id": id, "deadline_time": null}});
        let kind: String = row.try_get("type")?;
        if kind == "triggerer" {
            in_triggerer(db, callback_id, data, kwargs, time, now).await?;
        } else {
            data["deadline_id"] = json!(id);
            data["dag_run_id"] = json!(dag_run_id.to_string());
            data["dag_id"] = dag_id;
            set(db, callback_id, data, kwargs, time, "pending").await?;
        }
        sqlx::query(
            "UPDATE deadline SET missed = true, last_updated_at = $2 WHERE id = $1 AND NOT missed",
        )
        .bind(id)
        .bind(now)
        .execute(&mut *db)
        .await?;
    }
    Ok(passed.len() as u64)
}

/// Stores the arguments, with the date as Airflow's column type writes one, and the new state.
async fn set(
    db: &mut PgConnection,
    callback_id: Uuid,
    mut data: Value,
    kwargs: Value,
    time: DateTime<Utc>,
    state: &str,
) -> Result<(), Error> {
    data["kwargs"] = kwargs;
    let mut data = wrapped(data);
    data["__var"]["kwargs"]["__var"]["context"]["__var"]["deadline"]["__var"]["deadline_time"] =
        json!({"__type": "datetime", "__var": seconds(time)});
    sqlx::query("UPDATE callback SET data = $2, state = $3 WHERE id = $1 AND state = 'scheduled'")
        .bind(callback_id)
        .bind(data)
        .bind(state)
        .execute(db)
        .await?;
    Ok(())
}

/// `airflow: TriggererCallback.queue`
async fn in_triggerer(
    db: &mut PgConnection,
    callback_id: Uuid,
    data: Value,
    kwargs: Value,
    time: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let mut arguments = kwargs.clone();
    arguments["context"]["deadline"]["deadline_time"] = python_datetime(time);
    let trigger = json!({"callback_path": data["path"], "callback_kwargs": arguments});
    // Plain JSON, as the Execution API writes triggers too; Airflow's readers take it beside encrypted ones.
    let trigger_id: i32 = sqlx::query_scalar(
        "INSERT INTO trigger (classpath, kwargs, created_date) \
         VALUES ('airflow.triggers.callback.CallbackTrigger', $1, $2) RETURNING id",
    )
    .bind(trigger.to_string())
    .bind(now)
    .fetch_one(&mut *db)
    .await?;
    set(db, callback_id, data, kwargs, time, "queued").await?;
    sqlx::query("UPDATE callback SET trigger_id = $2 WHERE id = $1 AND state = 'queued'")
        .bind(callback_id)
        .bind(trigger_id)
        .execute(db)
        .await?;
    Ok(())
}

/// Callbacks that wait for the triggerer or run in it.
///
/// # Errors
/// The database's errors.
pub async fn in_triggerer_now(db: &mut PgConnection) -> Result<i64, Error> {
    // By class: `callback` may hold years of missed deadlines, `trigger` only what waits.
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM trigger WHERE classpath = 'airflow.triggers.callback.CallbackTrigger'",
    )
    .fetch_one(db)
    .await?)
}

/// `airflow: core_api.datamodels.dag_run.DAGRunResponse`
async fn run_response(db: &mut PgConnection, dag_run_id: i32) -> Result<Value, Error> {
    let row = sqlx::query(
        "SELECT dr.*, extract(epoch FROM dr.end_date - dr.start_date)::float8 AS duration, \
                (SELECT n.content FROM dag_run_note n WHERE n.dag_run_id = dr.id) AS note, \
                coalesce(d.dag_display_name, d.dag_id) AS dag_display_name, \
                (SELECT coalesce(jsonb_agg(jsonb_build_object('id', v.id, 'version_number', v.version_number, \
                        'dag_id', v.dag_id, 'bundle_name', v.bundle_name, 'bundle_version', v.bundle_version, \
                        'created_at', v.created_at, 'dag_display_name', coalesce(d.dag_display_name, d.dag_id), \
                        'bundle_url', NULL) ORDER BY v.version_number), '[]'::jsonb) \
                   FROM dag_version v \
                  WHERE v.id IN (SELECT ti.dag_version_id FROM task_instance ti \
                                  WHERE ti.dag_id = dr.dag_id AND ti.run_id = dr.run_id)) AS dag_versions \
           FROM dag_run dr JOIN dag d ON d.dag_id = dr.dag_id WHERE dr.id = $1",
    )
    .bind(dag_run_id)
    .fetch_one(db)
    .await?;
    let date = |name: &str| -> Result<Value, Error> {
        let date: Option<DateTime<Utc>> = row.try_get(name)?;
        Ok(json!(date.map(|date| {
            date.to_rfc3339_opts(SecondsFormat::AutoSi, true)
        })))
    };
    let text =
        |name: &str| -> Result<Value, Error> { Ok(json!(row.try_get::<Option<String>, _>(name)?)) };
    Ok(json!({
        "dag_run_id": text("run_id")?,
        "dag_id": text("dag_id")?,
        "logical_date": date("logical_date")?,
        "queued_at": date("queued_at")?,
        "start_date": date("start_date")?,
        "end_date": date("end_date")?,
        "duration": row.try_get::<Option<f64>, _>("duration")?,
        "data_interval_start": date("data_interval_start")?,
        "data_interval_end": date("data_interval_end")?,
        "run_after": date("run_after")?,
        "last_scheduling_decision": date("last_scheduling_decision")?,
        "run_type": text("run_type")?,
        "state": text("state")?,
        "triggered_by": text("triggered_by")?.as_str().map(str::to_lowercase),
        "triggering_user_name": text("triggering_user_name")?,
        "conf": row.try_get::<Option<Value>, _>("conf")?,
        "note": text("note")?,
        "dag_versions": row.try_get::<Value, _>("dag_versions")?,
        "bundle_version": text("bundle_version")?,
        "dag_display_name": text("dag_display_name")?,
        "partition_key": text("partition_key")?,
        "partition_date": date("partition_date")?,
    }))
}

/// Plain JSON as Airflow's ExtendedJSON columns hold it.
fn wrapped(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: serde_json::Map<String, Value> = fields
                .into_iter()
                .map(|(name, value)| (name, wrapped(value)))
                .collect();
            json!({"__type": "dict", "__var": fields})
        }
        Value::Array(items) => Value::Array(items.into_iter().map(wrapped).collect()),
        other => other,
    }
}

/// A `datetime.datetime` as Airflow's serde writes it.
#[must_use]
pub fn python_datetime(at: DateTime<Utc>) -> Value {
    json!({
        "__classname__": "datetime.datetime",
        "__version__": 2,
        "__data__": {
            "timestamp": seconds(at),
            "tz": {
                "__classname__": "builtins.tuple",
                "__version__": 1,
                "__data__": ["UTC", "pendulum.tz.timezone.Timezone", 1, true],
            },
        },
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 fit into a float until 2255"
)]
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_micros() as f64 / 1e6
}

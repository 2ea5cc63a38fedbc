//! Asking for a callback: the row that Airflow's scheduler would send to the dag-processor.
//! `airflow: callbacks.callback_requests, DatabaseCallbackSink.send`

use chrono::{DateTime, SecondsFormat, Utc};
use model::TaskInstanceState;
use scheduler::callbacks::{About, DagCallback, TaskCallbacks};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::execution::dag_runs::{self, DagRunRow};
use crate::{Error, carrier};

/// Asks for the callback of a run that ended. `airflow: DagRun.produce_dag_callback`
///
/// # Errors
/// The database's errors.
pub async fn of_run(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
    callback: &DagCallback,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(run) = dag_runs::find(db, dag_id, run_id).await? else {
        return Ok(());
    };
    let Some(code) = code_of_run(db, dag_id, run_id).await? else {
        return Ok(());
    };
    let last_ti = match callback.about {
        About::Nothing => None,
        About::This(id) => task_instance(db, id).await?,
        About::LastEnded(state) => match last_ended(db, dag_id, run_id, state).await? {
            Some(id) => task_instance(db, id).await?,
            None => None,
        },
    };
    let request = json!({
        "filepath": code.file,
        "bundle_name": code.bundle_name,
        "bundle_version": code.bundle_version,
        "msg": callback.reason,
        "dag_id": dag_id,
        "run_id": run_id,
        "context_from_server": {
            "dag_run": run_json(db, run).await?,
            "last_ti": last_ti.map(|(json, _)| json),
        },
        "is_failure_callback": callback.is_failure,
        "type": "DagCallbackRequest",
    });
    send(db, &code.bundle_name, "DagCallbackRequest", &request, now).await
}

/// Asks for what is owed for a lost try; to be called while the task instance still is that try. `why` is what people
/// read. `airflow: SchedulerJobRunner.process_executor_events`
///
/// # Errors
/// The database's errors.
pub async fn of_lost_try(
    db: &mut PgConnection,
    ti_id: Uuid,
    owed: &TaskCallbacks,
    why: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if *owed == TaskCallbacks::default() {
        return Ok(());
    }
    let Some((ti, max_tries)) = task_instance(db, ti_id).await? else {
        return Ok(());
    };
    let part = |name: &str| ti[name].as_str().unwrap_or_default().to_owned();
    let (dag_id, run_id) = (part("dag_id"), part("run_id"));
    let Some(run) = dag_runs::find(db, &dag_id, &run_id).await? else {
        return Ok(());
    };
    let Some(code) = code_of_run(db, &dag_id, &run_id).await? else {
        return Ok(());
    };
    let mut request = json!({
        "filepath": code.file,
        "bundle_name": code.bundle_name,
        "bundle_version": code.bundle_version,
        "msg": why,
        "ti": ti,
        "context_from_server": {
            "dag_run": run_json(db, run).await?,
            "task_reschedule_count": 0,
            "max_tries": max_tries,
            "variables": [],
            "connections": [],
            "xcom_keys_to_clear": [],
            "should_retry": false,
        },
    });
    if let Some(state) = owed.callback {
        request["type"] = json!("TaskCallbackRequest");
        request["task_callback_type"] = json!(state.as_str());
        send(db, &code.bundle_name, "TaskCallbackRequest", &request, now).await?;
    }
    if let Some(state) = owed.email {
        if let Value::Object(fields) = &mut request {
            fields.remove("task_callback_type");
        }
        request["type"] = json!("EmailRequest");
        request["email_type"] = json!(match state {
            TaskInstanceState::UpForRetry => "retry",
            _ => "failure",
        });
        send(db, &code.bundle_name, "EmailRequest", &request, now).await?;
    }
    Ok(())
}

/// `airflow: DagProcessorCallback`
async fn send(
    db: &mut PgConnection,
    bundle_name: &str,
    class: &str,
    request: &Value,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let data = json!({
        "__type": "dict",
        "__var": {"req_class": class, "req_data": request.to_string()},
    });
    sqlx::query(
        "INSERT INTO callback (id, type, fetch_method, data, bundle_name, state, priority_weight, created_at) \
         VALUES ($1, 'dag_processor', 'dag_attribute', $2, $3, NULL, 1, $4)",
    )
    .bind(Uuid::now_v7())
    .bind(data)
    .bind(bundle_name)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// Where the code of a run lies.
#[derive(sqlx::FromRow)]
struct Code {
    file: String,
    bundle_name: String,
    bundle_version: Option<String>,
}

async fn code_of_run(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
) -> Result<Option<Code>, Error> {
    Ok(sqlx::query_as(
        "SELECT coalesce(d.relative_fileloc, '') AS file, d.bundle_name, dr.bundle_version \
           FROM dag_run dr JOIN dag d ON d.dag_id = dr.dag_id \
          WHERE dr.dag_id = $1 AND dr.run_id = $2",
    )
    .bind(dag_id)
    .bind(run_id)
    .fetch_optional(db)
    .await?)
}

async fn last_ended(
    db: &mut PgConnection,
    dag_id: &str,
    run_id: &str,
    state: TaskInstanceState,
) -> Result<Option<Uuid>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND state = $3 \
          ORDER BY end_date DESC NULLS LAST, task_id, map_index LIMIT 1",
    )
    .bind(dag_id)
    .bind(run_id)
    .bind(state.as_str())
    .fetch_optional(db)
    .await?)
}

/// A task instance as callbacks see it, and its `max_tries`; `None` also for one from before DAG versions, which
/// Airflow's model can't hold. `airflow: datamodels.taskinstance.TaskInstance`
async fn task_instance(db: &mut PgConnection, id: Uuid) -> Result<Option<(Value, i32)>, Error> {
    let row = sqlx::query(
        "SELECT id, task_id, dag_id, run_id, try_number, dag_version_id, map_index, hostname, context_carrier, \
                coalesce(queue, 'default') AS queue, max_tries \
           FROM task_instance WHERE id = $1 AND dag_version_id IS NOT NULL",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let context: Option<Value> = row.try_get("context_carrier")?;
    let json = json!({
        "id": row.try_get::<Uuid, _>("id")?,
        "task_id": row.try_get::<String, _>("task_id")?,
        "dag_id": row.try_get::<String, _>("dag_id")?,
        "run_id": row.try_get::<String, _>("run_id")?,
        "try_number": row.try_get::<i32, _>("try_number")?,
        "dag_version_id": row.try_get::<Uuid, _>("dag_version_id")?,
        "map_index": row.try_get::<i32, _>("map_index")?,
        "hostname": row.try_get::<Option<String>, _>("hostname")?,
        "context_carrier": context.as_ref().map(carrier::unwrap),
        "queue": row.try_get::<String, _>("queue")?,
    });
    Ok(Some((json, row.try_get("max_tries")?)))
}

/// `airflow: datamodels.taskinstance.DagRun`
async fn run_json(db: &mut PgConnection, run: DagRunRow) -> Result<Value, Error> {
    let date = |date: Option<DateTime<Utc>>| {
        date.map(|date| date.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    };
    let mut consumed = Vec::new();
    for event in dag_runs::consumed_asset_events(db, &run.dag_id, &run.run_id).await? {
        let aliases: Vec<Value> = event
            .source_aliases
            .iter()
            .map(|name| json!({"name": name}))
            .collect();
        consumed.push(json!({
            "asset": {"name": event.name, "uri": event.uri, "extra": parsed(&event.asset_extra)},
            "extra": parsed(&event.extra),
            "source_task_id": event.source_task_id,
            "source_dag_id": event.source_dag_id,
            "source_run_id": event.source_run_id,
            "source_map_index": event.source_map_index,
            "source_aliases": aliases,
            "timestamp": date(Some(event.timestamp)),
            "partition_key": event.partition_key,
        }));
    }
    Ok(json!({
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "logical_date": date(run.logical_date),
        "data_interval_start": date(run.data_interval_start),
        "data_interval_end": date(run.data_interval_end),
        "run_after": date(Some(run.run_after)),
        "start_date": date(run.start_date),
        "end_date": date(run.end_date),
        "clear_number": run.clear_number,
        "run_type": run.run_type,
        "state": run.state,
        "conf": run.conf.as_deref().map(parsed),
        "triggering_user_name": run.triggering_user_name,
        "consumed_asset_events": consumed,
        "partition_key": run.partition_key,
        "partition_date": date(run.partition_date),
        "note": null,
        "team_name": null,
    }))
}

/// The text of a JSON column.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

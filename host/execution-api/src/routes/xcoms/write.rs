//! `POST` and `DELETE` of one XCom.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use futures::TryStreamExt;
use http::StatusCode;
use metadata::execution::xcoms::{self, NewXcom, Writer};
use plugin_host::{Payload, Scope, Stored, XcomCoordinate};
use serde_json::{Value, json};
use tokio_util::io::StreamReader;
use uuid::Uuid;

use super::checked::CheckedReader;
use super::json_text::Fault;
use super::{Form, Target};
use crate::limits::XcomWrites;
use crate::problem::Problem;
use crate::request::{Caller, Complaints, Params};
use crate::routes::dag_run::parsed;
use crate::{ApiState, clock};

/// The width of the `key` column.
const LONGEST_KEY: usize = 512;

pub(crate) async fn set(
    State(api): State<ApiState>,
    caller: Caller,
    form: Form,
    target: Target,
    mut params: Params,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let map_index = params.integer("map_index").unwrap_or(-1);
    let dag_result = params.flag("dag_result", false);
    let mapped_length: Option<i32> = params.integer("mapped_length");
    params.check()?;
    check_key(&target.key)?;
    if mapped_length.is_some_and(|length| length > api.limits.max_map_length) {
        return Err(Problem::because(
            StatusCode::BAD_REQUEST,
            "unmappable_return_value_length",
            "pushed value is too large to map as a downstream's dependency",
        ));
    }
    let body = receive(&api, request.into_body()).await?;

    let writer = writer(&api, caller.ti_id, &target, map_index).await?;
    let try_number = u32::try_from(writer.target_try_number.unwrap_or(0)).unwrap_or(0);
    let at = target.coordinate(&target.run_id, map_index, try_number);
    let column = column(&api, &at, body, form).await?;

    let new = NewXcom {
        value: &column,
        dag_result,
        mapped_length,
    };
    let mut db = api.pool.acquire().await?;
    let stored = xcoms::store(&mut db, &target.at(map_index), &new, clock::now()).await?;
    drop(db);
    match stored {
        xcoms::Stored::NoDagRun => return Err(no_dag_run(&target)),
        xcoms::Stored::Yes { replaced } => {
            purge_replaced(&api, at, replaced.as_deref(), &column).await
        }
    }
    Ok((
        StatusCode::CREATED,
        Json(json!({"message": "XCom successfully set"})),
    ))
}

pub(crate) async fn delete(
    State(api): State<ApiState>,
    caller: Caller,
    target: Target,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let map_index = params.integer("map_index").unwrap_or(-1);
    params.check()?;
    check_deletion(&api, caller.ti_id, &target, map_index).await?;
    let mut db = api.pool.acquire().await?;
    let removed = xcoms::remove(&mut db, &target.at(map_index)).await?;
    drop(db);
    if let Some(column) = removed {
        purge(
            &api,
            target.coordinate(&target.run_id, map_index, 0),
            &column,
        )
        .await;
    }
    let message = format!("XCom with key: {} successfully deleted.", target.key);
    Ok(Json(json!({"message": message})))
}

fn check_key(key: &str) -> Result<(), Problem> {
    let length = key.chars().count();
    if length <= LONGEST_KEY && !key.contains('\0') {
        return Ok(());
    }
    Err(Problem::because(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid_key",
        format!(
            "an XCom key has at most {LONGEST_KEY} characters and no NUL; this one has {length}"
        ),
    ))
}

/// The body, checked to be JSON while it arrives; in memory while it is small, else in an unnamed file.
async fn receive(api: &ApiState, body: Body) -> Result<Payload, Problem> {
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let mut reader = CheckedReader::new(StreamReader::new(Box::pin(stream)));
    let received = Payload::spool(&api.spool_dir, &mut reader, api.limits.max_xcom_bytes).await;
    match received {
        // No body is how workers push None.
        Ok(payload) if payload.is_empty() => Ok(Payload::from("null")),
        Ok(payload) => reader
            .finish()
            .map(|()| payload)
            .map_err(|fault| not_json(&fault)),
        Err(plugin_host::Error::PayloadTooLarge { limit }) => Err(Problem::because(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!(
                "the XCom value is larger than {limit} bytes, the limit of this environment\n\
                 hint: push a reference to where the data is, or raise xcom.max_bytes"
            ),
        )),
        Err(error) => match reader.fault() {
            Some(fault) => Err(not_json(&fault)),
            None => Err(error.into()),
        },
    }
}

/// What goes into the `value` column.
async fn column(
    api: &ApiState,
    at: &XcomCoordinate,
    body: Payload,
    form: Form,
) -> Result<String, Problem> {
    match form {
        Form::Stored => {
            let max = u64::try_from(api.limits.max_body_bytes).unwrap_or(u64::MAX);
            let bytes = body.into_bytes(max).await?;
            String::from_utf8(bytes.into()).map_err(|_| Problem::bug("checked JSON is not UTF-8"))
        }
        Form::Value => Ok(api.xcoms.put(at, body).await?.to_column().to_string()),
    }
}

fn not_json(fault: &Fault) -> Problem {
    let mut complaints = Complaints::default();
    complaints.add_with(json!({
        "type": "json_invalid",
        "loc": ["body", fault.at],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": fault.to_string()},
    }));
    complaints.into_problem()
}

/// Who writes, if that is allowed. A task writes its own XComs only, unless the environment says otherwise; and a try
/// that was retried or cleared writes nothing once its successor may have begun.
async fn writer(
    api: &ApiState,
    caller: Uuid,
    target: &Target,
    map_index: i32,
) -> Result<Writer, Problem> {
    let mut db = api.pool.acquire().await?;
    let writer = xcoms::writer(&mut db, caller, &target.at(map_index)).await?;
    drop(db);
    if !writer.run_exists {
        return Err(no_dag_run(target));
    }
    if !writer.target_exists {
        return Err(Problem::not_found(format!(
            "Task instance of task '{}' with map_index={map_index} not found in DAG run '{}' of '{}'",
            target.task_id, target.run_id, target.dag_id
        )));
    }
    check_writer(api, &writer)?;
    Ok(writer)
}

async fn check_deletion(
    api: &ApiState,
    caller: Uuid,
    target: &Target,
    map_index: i32,
) -> Result<(), Problem> {
    let mut db = api.pool.acquire().await?;
    let writer = xcoms::writer(&mut db, caller, &target.at(map_index)).await?;
    // Nothing is there to be deleted: as in Airflow, that is no error.
    if writer.target_exists {
        check_writer(api, &writer)
    } else {
        Ok(())
    }
}

fn check_writer(api: &ApiState, writer: &Writer) -> Result<(), Problem> {
    let idle = !matches!(
        writer.target_state.as_deref(),
        Some("queued" | "running" | "restarting")
    );
    if !(writer.is_current || writer.is_own && idle) {
        return Err(Problem::because(
            StatusCode::GONE,
            "not_found",
            "the try that this token was made for was retried or cleared; it can write no XCom any more",
        ));
    }
    match api.limits.xcom_writes {
        XcomWrites::Any => Ok(()),
        XcomWrites::Own if writer.is_own => Ok(()),
        XcomWrites::Own => Err(Problem::because(
            StatusCode::FORBIDDEN,
            "access_denied",
            "a task writes and deletes only its own XComs",
        )),
    }
}

fn no_dag_run(target: &Target) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!(
            "DAG run not found on DAG '{}' with ID '{}'",
            target.dag_id, target.run_id
        ),
    )
}

/// What an overwritten row pointed at goes away, unless the new value lies in the same place, or elsewhere with the
/// plugin: it may take the coordinate for all it knows of, and the new value with it.
async fn purge_replaced(api: &ApiState, at: XcomCoordinate, replaced: Option<&str>, new: &str) {
    let Some(old) = replaced else { return };
    let stays_with_plugin = matches!(
        parsed(new).map(Stored::from_column),
        Ok(Stored::Elsewhere(_))
    );
    if !stays_with_plugin {
        purge(api, at, old).await;
    }
}

/// Tells the plugin that a row is gone. What it fails to remove stays until its run is deleted; the request succeeded.
async fn purge(api: &ApiState, at: XcomCoordinate, column: &str) {
    let Ok(Stored::Elsewhere(reference)) = parsed(column).map(Stored::from_column) else {
        return;
    };
    let task = at.task.clone();
    if let Err(error) = api.xcoms.purge(&Scope::One(at), &[reference]).await {
        tracing::warn!(
            dag_id = task.dag_id, run_id = task.run_id, task_id = task.task_id, map_index = task.map_index,
            %error, "a removed XCom's value stays behind"
        );
    }
}

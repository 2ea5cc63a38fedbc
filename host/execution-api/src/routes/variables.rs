//! `variables/{key…}` and `variables/keys`. Environment variables and secrets backends are the worker's business;
//! here is the database only.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use metadata::execution::variables::{self, StoredVariable};
use serde_json::{Value, json};

use crate::ApiState;
use crate::problem::Problem;
use crate::request::{Body, Caller, Fields, Params};

pub(crate) async fn keys(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let prefix = params.optional("prefix").unwrap_or_default().to_owned();
    let limit = params.bounded("limit", 1000, 1..=10_000);
    let offset = params.bounded("offset", 0, 0..=i64::MAX);
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let (keys, total) = variables::keys(&mut db, &prefix, limit, offset).await?;
    Ok(Json(json!({"keys": keys, "total_entries": total})))
}

pub(crate) async fn get(
    State(api): State<ApiState>,
    _: Caller,
    Path(key): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let stored = variables::find(&mut db, &key)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Variable with key '{key}' not found")))?;
    let value = if stored.is_encrypted {
        api.secrets
            .decrypt(&stored.val)
            .ok_or_else(|| unreadable(&format!("variable '{key}'")))?
    } else {
        stored.val
    };
    Ok(Json(json!({"key": key, "value": value})))
}

pub(crate) async fn put(
    State(api): State<ApiState>,
    _: Caller,
    Path(key): Path<String>,
    Body(body): Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut body = Fields::of_body(&body)?;
    // airflow: the alias and the name of the field are both taken.
    let name = if body.has("value") && !body.has("val") {
        "value"
    } else {
        "val"
    };
    let value = body.required_nullable_string(name);
    let description = body.optional_string("description");
    body.finish()?;
    // airflow: Variable.set stores str(value), which makes a text of None.
    let (val, is_encrypted) = api.secrets.encrypt(value.as_deref().unwrap_or("None"));
    let stored = StoredVariable { val, is_encrypted };
    let mut db = api.pool.acquire().await?;
    variables::set(&mut db, &key, &stored, description.as_deref()).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"message": "Variable successfully set"})),
    ))
}

pub(crate) async fn delete(
    State(api): State<ApiState>,
    _: Caller,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut db = api.pool.acquire().await?;
    variables::remove(&mut db, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A variable that is named `keys` can be written, though not read; as in Airflow.
pub(crate) async fn put_keys(
    state: State<ApiState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    put(state, caller, Path("keys".to_owned()), body).await
}

pub(crate) async fn delete_keys(
    state: State<ApiState>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    delete(state, caller, Path("keys".to_owned())).await
}

/// A secret that none of the keys opens. Not 5xx, since trying again won't help; not 404, since it is there.
pub(super) fn unreadable(what: &str) -> Problem {
    Problem::because(
        StatusCode::CONFLICT,
        "undecryptable",
        format!(
            "{what} was encrypted with a Fernet key that this environment does not have\n\
             hint: set [core] fernet_key to the key that it was stored with, or store it again"
        ),
    )
}

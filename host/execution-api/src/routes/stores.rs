//! `store/ti/{id}/{key…}` and `store/asset/by-name|by-uri/…`: values that outlive a try.

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::StatusCode;
use metadata::execution::task_instances::{self, Place};
use metadata::execution::{assets, stores};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::dag_run::parsed;
use crate::problem::Problem;
use crate::request::{Body, Caller, Fields, OwnTask, Params};
use crate::{ApiState, clock};

pub(crate) async fn get_of_task(
    State(api): State<ApiState>,
    task: OwnTask,
    Path((_, key)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let place = place(&mut db, task.id).await?;
    let value = stores::task_value(&mut db, &place, &key)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Task state store key '{key}' not found")))?;
    Ok(Json(json!({"value": parsed(&value)?})))
}

pub(crate) async fn put_of_task(
    State(api): State<ApiState>,
    task: OwnTask,
    Path((_, key)): Path<(String, String)>,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let mut body = Fields::of_body(&body)?;
    let value = body.any("value");
    let expires_at = body.optional_date("expires_at");
    finish(body, &value)?;
    let mut db = api.pool.acquire().await?;
    let place = place(&mut db, task.id).await?;
    stores::set_task_value(&mut db, &place, &key, &value, expires_at, clock::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete_of_task(
    State(api): State<ApiState>,
    task: OwnTask,
    Path((_, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut db = api.pool.acquire().await?;
    let place = place(&mut db, task.id).await?;
    stores::remove_task_values(&mut db, &place, Some(&key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn clear_of_task(
    State(api): State<ApiState>,
    task: OwnTask,
) -> Result<StatusCode, Problem> {
    let mut db = api.pool.acquire().await?;
    let place = place(&mut db, task.id).await?;
    stores::remove_task_values(&mut db, &place, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `value` and `clear` of the assets that the path names so.
pub(crate) fn of_assets(by: By) -> Router<ApiState> {
    let value = get(move |State(api), _: Caller, params| get_of_asset(by, api, params))
        .put(move |State(api), caller, params, body| put_of_asset(by, api, caller, params, body))
        .delete(move |State(api), _: Caller, params| delete_of_asset(by, api, params));
    let clear = delete(move |State(api), _: Caller, params| clear_of_asset(by, api, params));
    Router::new().route("/value", value).route("/clear", clear)
}

/// How the path names an asset.
#[derive(Clone, Copy)]
pub(crate) enum By {
    Name,
    Uri,
}

async fn get_of_asset(by: By, api: ApiState, mut params: Params) -> Result<Json<Value>, Problem> {
    let asset = params.required_name(by.parameter());
    let key = params.required_name("key");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let asset_id = by.find(&mut db, &asset).await?;
    let value = stores::asset_value(&mut db, asset_id, &key)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Asset state store key '{key}' not found")))?;
    Ok(Json(json!({"value": parsed(&value)?})))
}

async fn put_of_asset(
    by: By,
    api: ApiState,
    caller: Caller,
    mut params: Params,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let asset = params.required_name(by.parameter());
    let key = params.required_name("key");
    params.check()?;
    let mut body = Fields::of_body(&body)?;
    let value = body.any("value");
    finish(body, &value)?;
    let mut db = api.pool.acquire().await?;
    let asset_id = by.find(&mut db, &asset).await?;
    let writer = place(&mut db, caller.ti_id).await?;
    stores::set_asset_value(&mut db, asset_id, &key, &value, &writer, clock::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_of_asset(by: By, api: ApiState, mut params: Params) -> Result<StatusCode, Problem> {
    let asset = params.required_name(by.parameter());
    let key = params.required_name("key");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let asset_id = by.find(&mut db, &asset).await?;
    stores::remove_asset_values(&mut db, asset_id, Some(&key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_of_asset(by: By, api: ApiState, mut params: Params) -> Result<StatusCode, Problem> {
    let asset = params.required_name(by.parameter());
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let asset_id = by.find(&mut db, &asset).await?;
    stores::remove_asset_values(&mut db, asset_id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl By {
    const fn parameter(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Uri => "uri",
        }
    }

    async fn find(self, db: &mut PgConnection, named: &str) -> Result<i32, Problem> {
        let (name, uri) = match self {
            Self::Name => (Some(named), None),
            Self::Uri => (None, Some(named)),
        };
        let asset = assets::active(db, name, uri).await?;
        asset.map(|asset| asset.id).ok_or_else(|| {
            Problem::not_found(format!(
                "Asset with {}='{named}' not found",
                self.parameter()
            ))
        })
    }
}

async fn place(db: &mut PgConnection, id: Uuid) -> Result<Place, Problem> {
    task_instances::place(db, id)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Task instance {id} not found")))
}

/// A value may be anything but null.
fn finish(mut body: Fields, value: &str) -> Result<(), Problem> {
    if value == "null" {
        body.complain_with(json!({
            "type": "value_error",
            "loc": ["body", "value"],
            "msg": "Value error, value cannot be null",
            "input": null,
            "ctx": {"error": {}},
        }));
    }
    body.finish()
}

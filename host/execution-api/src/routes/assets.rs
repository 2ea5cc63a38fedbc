//! `assets/by-name`, `by-uri`, `by-alias`.

use axum::Json;
use axum::extract::State;
use metadata::execution::assets::{self, AssetRow};
use serde_json::{Value, json};

use super::dag_run::parsed;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::{Caller, Params};

pub(crate) async fn by_name(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let name = params.required("name");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let asset = assets::active(&mut db, Some(&name), None)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Asset with name {name} not found")))?;
    answer(&asset).map(Json)
}

pub(crate) async fn by_uri(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let uri = params.required("uri");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let asset = assets::active(&mut db, None, Some(&uri))
        .await?
        .ok_or_else(|| Problem::not_found(format!("Asset with URI {uri} not found")))?;
    answer(&asset).map(Json)
}

pub(crate) async fn by_alias(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let alias = params.required("alias_name");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let assets = assets::of_alias(&mut db, &alias).await?;
    assets
        .iter()
        .map(answer)
        .collect::<Result<Value, _>>()
        .map(Json)
}

fn answer(asset: &AssetRow) -> Result<Value, Problem> {
    Ok(json!({
        "name": asset.name,
        "uri": asset.uri,
        "group": asset.group,
        "extra": parsed(&asset.extra)?,
    }))
}

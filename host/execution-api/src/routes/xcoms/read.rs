//! `GET` of one XCom, of `…/item/{n}` and `…/slice`, and `HEAD`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use metadata::execution::xcoms::{self, Nth, Row};
use serde_json::{Value, json};

use super::slice::Slice;
use super::{Form, Target, stream};
use crate::ApiState;
use crate::problem::Problem;
use crate::request::{Caller, Complaints, Params};

pub(crate) async fn read(
    State(api): State<ApiState>,
    _: Caller,
    form: Form,
    target: Target,
    params: Params,
) -> Result<Response, Problem> {
    match Selection::of(target)? {
        Selection::One(target) => one(&api, form, target, params).await,
        Selection::Item(target, offset) => item(&api, form, target, offset).await,
        Selection::Slice(target) => slice(&api, form, target, params).await,
    }
}

/// The end of a key says what is asked for; a key may have slashes of its own.
enum Selection {
    One(Target),
    Item(Target, i64),
    Slice(Target),
}

impl Selection {
    fn of(mut target: Target) -> Result<Self, Problem> {
        if let Some((key, offset)) = target.key.rsplit_once("/item/")
            && !offset.contains('/')
            && !key.is_empty()
        {
            let Ok(offset) = offset.parse() else {
                let mut complaints = Complaints::default();
                complaints.add(
                    "int_parsing",
                    json!(["path", "offset"]),
                    "Input should be a valid integer, unable to parse string as an integer",
                    offset,
                );
                return Err(complaints.into_problem());
            };
            target.key = key.to_owned();
            return Ok(Self::Item(target, offset));
        }
        if let Some(key) = target
            .key
            .strip_suffix("/slice")
            .filter(|key| !key.is_empty())
        {
            target.key = key.to_owned();
            return Ok(Self::Slice(target));
        }
        Ok(Self::One(target))
    }
}

async fn one(
    api: &ApiState,
    form: Form,
    target: Target,
    mut params: Params,
) -> Result<Response, Problem> {
    let map_index = params.integer("map_index").unwrap_or(-1);
    let prior_dates = params.flag("include_prior_dates", false);
    let offset: Option<i64> = params.integer("offset");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let found = match offset {
        None => xcoms::one(&mut db, &target.at(map_index), prior_dates).await?,
        Some(offset) => {
            xcoms::nth(&mut db, &target.at(map_index), nth(offset), prior_dates).await?
        }
    };
    drop(db);
    let row = found.ok_or_else(|| {
        let which = match offset {
            None => format!("map_index={map_index}"),
            Some(offset) => format!("offset={offset}"),
        };
        Problem::not_found(format!(
            "XCom with key='{}' {which} {}",
            target.key,
            target.place()
        ))
    })?;
    let key = Value::from(target.key.as_str());
    let value = value_of(api, form, &target, row).await?;
    Ok(stream::framed(
        format!("{{\"key\":{key},\"value\":"),
        value,
        "}",
    ))
}

async fn item(
    api: &ApiState,
    form: Form,
    target: Target,
    offset: i64,
) -> Result<Response, Problem> {
    let mut db = api.pool.acquire().await?;
    let found = xcoms::nth(&mut db, &target.at(-1), nth(offset), false).await?;
    drop(db);
    let row = found.ok_or_else(|| {
        Problem::not_found(format!(
            "XCom with key='{}' offset={offset} {}",
            target.key,
            target.place()
        ))
    })?;
    let value = value_of(api, form, &target, row).await?;
    Ok(stream::framed(String::new(), value, ""))
}

async fn slice(
    api: &ApiState,
    form: Form,
    target: Target,
    mut params: Params,
) -> Result<Response, Problem> {
    let slice = Slice {
        start: params.integer("start"),
        stop: params.integer("stop"),
        step: params.integer("step"),
    };
    let prior_dates = params.flag("include_prior_dates", false);
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let rows = xcoms::all(&mut db, &target.at(-1), prior_dates).await?;
    drop(db);
    let chosen = slice
        .of(rows)
        .into_iter()
        .map(|row| (target.coordinate(&row.run_id, row.map_index, 0), row))
        .collect();
    stream::list(chosen, Arc::clone(&api.xcoms), form).await
}

/// `HEAD`: how many map indexes have this XCom, in a range unit of Airflow's own.
pub(crate) async fn count(
    State(api): State<ApiState>,
    _: Caller,
    target: Target,
    mut params: Params,
) -> Result<Response, Problem> {
    let map_index: Option<i32> = params.integer("map_index");
    params.check()?;
    if map_index.is_some() {
        return Err(Problem::because(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "Cannot specify map_index in a HEAD request",
        ));
    }
    let mut db = api.pool.acquire().await?;
    let count = xcoms::count(&mut db, &target.at(-1)).await?;
    let mut response = StatusCode::OK.into_response();
    if let Ok(range) = HeaderValue::from_str(&format!("map_indexes {count}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

async fn value_of(
    api: &ApiState,
    form: Form,
    target: &Target,
    row: Row,
) -> Result<plugin_host::Payload, Problem> {
    let at = target.coordinate(&row.run_id, row.map_index, 0);
    stream::value(&*api.xcoms, &at, row.value, form).await
}

fn nth(offset: i64) -> Nth {
    if offset >= 0 {
        Nth::FromStart(offset)
    } else {
        Nth::FromEnd(-1 - offset)
    }
}

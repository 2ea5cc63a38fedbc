//! `GET connections/{connection_id}`.

use axum::Json;
use axum::extract::{Path, State};
use metadata::execution::connections;
use serde_json::{Value, json};

use super::variables::unreadable;
use crate::ApiState;
use crate::problem::Problem;
use crate::request::Caller;

pub(crate) async fn get(
    State(api): State<ApiState>,
    _: Caller,
    Path(conn_id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let stored = connections::find(&mut db, &conn_id)
        .await?
        .ok_or_else(|| Problem::not_found(format!("Connection with ID {conn_id} not found")))?;
    let open = |text: Option<String>, is_encrypted: bool, what: &str| match text {
        Some(token) if is_encrypted && !token.is_empty() => api
            .secrets
            .decrypt(&token)
            .map(Some)
            .ok_or_else(|| unreadable(&format!("the {what} of connection '{conn_id}'"))),
        text => Ok(text),
    };
    Ok(Json(json!({
        "conn_id": stored.conn_id,
        "conn_type": stored.conn_type,
        "host": stored.host,
        "schema": stored.schema,
        "login": stored.login,
        "password": open(stored.password, stored.is_encrypted, "password")?,
        "port": stored.port,
        "extra": open(stored.extra, stored.is_extra_encrypted, "extra")?,
    })))
}

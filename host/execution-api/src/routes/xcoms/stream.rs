//! Answers that hold values without holding them in memory.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use http::{HeaderValue, header};
use metadata::execution::xcoms::Row;
use plugin_host::{Payload, Stored, XcomBackend, XcomCoordinate};
use tokio_util::io::ReaderStream;

use super::Form;
use crate::problem::Problem;
use crate::routes::dag_run::parsed;

/// How much of a value is in memory at a time.
const CHUNK: usize = 64 << 10;
/// How much of a list is fetched before it is answered.
const EAGER: usize = 8 << 20;

/// JSON before, the value, JSON after.
pub(super) fn framed(before: String, value: Payload, after: &'static str) -> Response {
    if let Payload::Inline(bytes) = &value {
        // One piece: the answer has a Content-Length and goes out in one write.
        let mut whole = before.into_bytes();
        whole.extend_from_slice(bytes);
        whole.extend_from_slice(after.as_bytes());
        return json(Body::from(whole));
    }
    let parts = piece(before.into())
        .chain(pieces(value))
        .chain(piece(Bytes::from_static(after.as_bytes())));
    json(Body::from_stream(parts))
}

/// A JSON list of values. The first megabytes are fetched before the answer begins, so that a value that can't be
/// read is an answer of its own; the rest come when their turn is there.
pub(super) async fn list(
    rows: Vec<(XcomCoordinate, Row)>,
    xcoms: Arc<dyn XcomBackend>,
    form: Form,
) -> Result<Response, Problem> {
    let mut rows = rows.into_iter();
    let mut ready: Vec<Payload> = Vec::new();
    let mut in_memory = 0;
    while in_memory < EAGER
        && let Some((at, row)) = rows.next()
    {
        let value = value(&*xcoms, &at, row.value, form).await?;
        if let Payload::Inline(bytes) = &value {
            in_memory += bytes.len();
        }
        ready.push(value);
    }
    let later = stream::iter(rows).then(move |(at, row)| {
        let xcoms = Arc::clone(&xcoms);
        async move {
            value(&*xcoms, &at, row.value, form)
                .await
                .map_err(|problem| {
                    std::io::Error::other(format!("an XCom can't be read: {problem:?}"))
                })
        }
    });
    let elements = stream::iter(ready)
        .map(Ok)
        .chain(later)
        .enumerate()
        .map(|(at, value)| {
            let comma = if at == 0 {
                Bytes::new()
            } else {
                Bytes::from_static(b",")
            };
            value.map(|value| piece(comma).chain(pieces(value)))
        })
        .try_flatten();
    let parts = piece(Bytes::from_static(b"["))
        .chain(elements)
        .chain(piece(Bytes::from_static(b"]")));
    Ok(json(Body::from_stream(parts)))
}

/// What a row stands for; or its column and where the row is, which need not be where it was asked for. As JSON.
pub(super) async fn value(
    xcoms: &dyn XcomBackend,
    at: &XcomCoordinate,
    column: String,
    form: Form,
) -> Result<Payload, Problem> {
    match form {
        Form::Stored => Ok(Payload::from(format!(
            "{{\"run_id\":{},\"map_index\":{},\"value\":{column}}}",
            serde_json::Value::from(at.task.run_id.as_str()),
            at.task.map_index
        ))),
        Form::Value => {
            let stored = Stored::from_column(parsed(&column)?);
            Ok(xcoms.get(at, &stored).await?)
        }
    }
}

fn pieces(value: Payload) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    ReaderStream::with_capacity(value.reader(), CHUNK)
}

fn piece(bytes: Bytes) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))
}

fn json(body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

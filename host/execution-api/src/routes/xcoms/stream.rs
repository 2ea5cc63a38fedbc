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

/// A JSON list of values, each fetched when its turn comes.
pub(super) fn list(
    rows: Vec<(XcomCoordinate, Row)>,
    xcoms: Arc<dyn XcomBackend>,
    form: Form,
) -> Response {
    let values = stream::iter(rows.into_iter().enumerate()).then(move |(at, (coordinate, row))| {
        let xcoms = Arc::clone(&xcoms);
        async move {
            let value = value(&*xcoms, &coordinate, row.value, form)
                .await
                .map_err(|problem| {
                    std::io::Error::other(format!("an XCom can't be read: {problem:?}"))
                })?;
            let comma = if at == 0 {
                Bytes::new()
            } else {
                Bytes::from_static(b",")
            };
            Ok::<_, std::io::Error>(piece(comma).chain(pieces(value)))
        }
    });
    let parts = piece(Bytes::from_static(b"["))
        .chain(values.try_flatten())
        .chain(piece(Bytes::from_static(b"]")));
    json(Body::from_stream(parts))
}

/// What a row stands for, or its column, as JSON.
pub(super) async fn value(
    xcoms: &dyn XcomBackend,
    at: &XcomCoordinate,
    column: String,
    form: Form,
) -> Result<Payload, Problem> {
    match form {
        Form::Stored => Ok(Payload::from(column)),
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

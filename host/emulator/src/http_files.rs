//! The addresses that clients put and get files at: blobs, blocks of volumes on their way in, parts of volumes' files on their way out.
//!
//! Each begins with a word that is only told over the API; without it nothing is there.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use axum::{
    Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tonic::Status;

use crate::{
    blobs::{self, BlobRow},
    contents::hex,
    core::Core,
    volumes::{self, BLOCK_BYTES},
};

const CHUNK_BYTES: usize = 256 << 10;

type Answer = Result<Response, Refusal>;

pub(crate) fn router(core: &Arc<Core>) -> Router {
    let word = &core.word;
    Router::new()
        .route(
            &format!("/{word}/blob/{{blob_id}}"),
            get(get_blob).put(put_blob),
        )
        .route(
            &format!("/{word}/block/{{hash}}"),
            axum::routing::put(put_block),
        )
        .route(
            &format!("/{word}/part/{{volume_id}}/{{start}}/{{length}}/{{*path}}"),
            get(get_part),
        )
        .with_state(Arc::downgrade(core))
}

/// What a request is refused with.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            tonic::Code::NotFound => StatusCode::NOT_FOUND,
            tonic::Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(code, status.message().to_owned())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

fn alive(core: &Weak<Core>) -> Result<Arc<Core>, Refusal> {
    core.upgrade().ok_or_else(|| {
        Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the emulator has ended".to_owned(),
        )
    })
}

async fn put_blob(
    State(core): State<Weak<Core>>,
    UrlPath(blob_id): UrlPath<String>,
    body: Body,
) -> Answer {
    let core = alive(&core)?;
    let Some(row) = core.lock().state.rows.get::<BlobRow>(&blob_id) else {
        return Err(Status::not_found(format!("blob {blob_id} not found")).into());
    };
    let fresh = core.contents.fresh();
    let result = receive(&fresh, body, row.length).await;
    match result {
        Ok(hash) if hash == row.sha256 => {
            tokio::fs::rename(&fresh, core.blob_path(&blob_id)).await?;
            Ok([(header::ETAG, format!("\"{}\"", row.md5))].into_response())
        }
        other => {
            let _ = tokio::fs::remove_file(&fresh).await;
            other?;
            Err(Status::invalid_argument(
                "The Content-MD5 you specified did not match what we received.",
            )
            .into())
        }
    }
}

async fn put_block(
    State(core): State<Weak<Core>>,
    UrlPath(hash): UrlPath<String>,
    body: Body,
) -> Answer {
    let core = alive(&core)?;
    let path = core.contents.path(&hash)?;
    let fresh = core.contents.fresh();
    let result = receive(&fresh, body, BLOCK_BYTES).await;
    match result {
        Ok(found) if found == hash => {
            tokio::fs::rename(&fresh, path).await?;
            Ok(hash.into_response())
        }
        other => {
            let _ = tokio::fs::remove_file(&fresh).await;
            other?;
            Err(Status::invalid_argument(format!("the block's SHA-256 is not {hash}")).into())
        }
    }
}

async fn get_blob(State(core): State<Weak<Core>>, UrlPath(blob_id): UrlPath<String>) -> Answer {
    let core = alive(&core)?;
    let (row, path) = blobs::find(&core, &core.lock(), &blob_id)?;
    Ok(send(path, 0, row.length).await?)
}

async fn get_part(
    State(core): State<Weak<Core>>,
    UrlPath((volume_id, start, length, path)): UrlPath<(String, u64, u64, String)>,
) -> Answer {
    let core = alive(&core)?;
    let path = volumes::file(&core, &core.lock(), &volume_id, &path)?;
    Ok(send(path, start, length).await?)
}

/// Writes a body to a file and answers its SHA-256.
async fn receive(file: &Path, body: Body, most: u64) -> Result<String, Refusal> {
    let mut file = tokio::fs::File::create(file).await?;
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
        length += chunk.len() as u64;
        if length > most {
            return Err(Refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("more than {most} bytes"),
            ));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    Ok(hex(&hash.finalize()))
}

/// A part of a file, as it is read.
async fn send(path: PathBuf, start: u64, length: u64) -> io::Result<Response> {
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    let length = length.min(size.saturating_sub(start));
    file.seek(SeekFrom::Start(start)).await?;
    let chunks = futures::stream::try_unfold(file.take(length), |mut file| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = file.read(&mut chunk).await?;
        chunk.truncate(count);
        io::Result::Ok((count > 0).then_some((chunk, file)))
    });
    Ok((
        [(header::CONTENT_LENGTH, length.to_string())],
        Body::from_stream(chunks),
    )
        .into_response())
}

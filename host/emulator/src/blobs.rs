//! Blobs: what is too large for a message is put and got over HTTP, at addresses that only who was told them knows.

use base64::{Engine, engine::general_purpose::STANDARD};
use modal_api::wire::{
    self, UploadUrlList,
    blob_create_response::{UploadTypeOneof, UploadTypesOneof},
};
use std::path::PathBuf;
use tonic::Status;

use crate::{
    ask::Ask,
    contents::hex,
    core::{Core, Inner},
    ids,
    rows::{Change, Row, Table},
};

/// Beyond this the official client no longer tells a checksum that could be checked.
const MAX_BLOB_BYTES: u64 = 1 << 30;
/// Results are forgotten after seven days; what they point at lives a little longer.
const KEPT_FOR: f64 = 8.0 * 24.0 * 3600.0;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobRow {
    #[prost(string, tag = "1")]
    pub(crate) sha256: String,
    #[prost(string, tag = "2")]
    pub(crate) md5: String,
    #[prost(uint64, tag = "3")]
    pub(crate) length: u64,
    #[prost(double, tag = "4")]
    created_at: f64,
}

impl Row for BlobRow {
    const TABLE: Table = Table::Blobs;
}

pub(crate) fn create(
    ask: &Ask,
    request: wire::BlobCreateRequest,
) -> Result<wire::BlobCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let length = u64::try_from(request.content_length).unwrap_or(u64::MAX);
    if length > MAX_BLOB_BYTES {
        return Err(Status::invalid_argument(format!(
            "a blob of {} bytes: the emulator takes up to {MAX_BLOB_BYTES}",
            request.content_length
        )));
    }
    let digest = |what: &str, text: &str| {
        STANDARD
            .decode(text)
            .map(|bytes| hex(&bytes))
            .map_err(|_| Status::invalid_argument(format!("{what} is no base64")))
    };
    let row = BlobRow {
        sha256: digest("content_sha256_base64", &request.content_sha256_base64)?,
        md5: digest("content_md5", &request.content_md5)?,
        length,
        created_at: ask.now(),
    };
    let blob_id = ids::object("bl");
    let url = ask.core.url(&format!("blob/{blob_id}"))?;
    let mut change = Change::default();
    change.put(&blob_id, &row);
    ask.commit(&mut guard, change)?;
    Ok(wire::BlobCreateResponse {
        blob_id: blob_id.clone(),
        upload_type_oneof: Some(UploadTypeOneof::UploadUrl(url.clone())),
        blob_ids: vec![blob_id],
        upload_types_oneof: Some(UploadTypesOneof::UploadUrls(UploadUrlList {
            items: vec![url],
        })),
    })
}

pub(crate) fn get(
    ask: &Ask,
    request: wire::BlobGetRequest,
) -> Result<wire::BlobGetResponse, Status> {
    find(&ask.core, &ask.core.lock(), &request.blob_id)?;
    Ok(wire::BlobGetResponse {
        download_url: ask.core.url(&format!("blob/{}", request.blob_id))?,
    })
}

/// A blob that was uploaded, and its file.
pub(crate) fn find(
    core: &Core,
    inner: &Inner,
    blob_id: &str,
) -> Result<(BlobRow, PathBuf), Status> {
    let row = inner.state.rows.get::<BlobRow>(blob_id);
    let path = core.blob_path(blob_id);
    match row {
        Some(row) if path.exists() => Ok((row, path)),
        Some(_) => Err(Status::failed_precondition(format!(
            "blob {blob_id} was not uploaded"
        ))),
        None => Err(Status::not_found(format!("blob {blob_id} not found"))),
    }
}

/// Drops old blobs with their files.
pub(crate) fn forget_old(core: &Core, inner: &Inner, now: f64) -> Change {
    let mut change = Change::default();
    for (id, row) in inner.state.rows.scan::<BlobRow>(b"") {
        if row.created_at + KEPT_FOR < now {
            let _ = std::fs::remove_file(core.blob_path(&String::from_utf8_lossy(id)));
            change.delete::<BlobRow>(id);
        }
    }
    change
}

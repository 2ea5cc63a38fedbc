//! Blobs: bytes without a name that are too large for a message. The server says where to, in one piece or in parts.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, header};
use md5::Md5;
use sha2::{Digest as _, Sha256};

use crate::{
    Client, Error,
    call::Caller,
    http::{Attempts, Http, Upload},
    wire::{
        self,
        blob_create_response::{UploadTypeOneof, UploadTypesOneof},
    },
};

const WHAT: &str = "a blob";
/// Parts on their way at the same time.
const PARTS_AT_ONCE: usize = 8;
// modal: MULTIPART_UPLOAD_THRESHOLD and the placeholder beyond it
const MD5_UP_TO: usize = 1 << 30;
const NO_MD5: [u8; 16] = [
    0xba, 0xad, 0xba, 0xad, 0xba, 0xad, 0xba, 0xad, 0xba, 0xad, 0xba, 0xad, 0xba, 0xad, 0xba, 0xad,
];

/// One way to bring a blob up, and the id that it has then.
enum Way {
    Whole(String),
    Parts(wire::MultiPartUpload),
}

impl Client {
    /// Brings bytes up and answers the blob's id. Where the server offers several stores they are tried in its order.
    pub async fn blob_put(&self, data: Bytes) -> Result<String, Error> {
        let (hashes, data) = tokio::task::spawn_blocking(move || (Hashes::of(&data), data))
            .await
            .map_err(|error| Error::Unexpected(error.to_string()))?;
        let request = wire::BlobCreateRequest {
            content_md5: BASE64.encode(hashes.md5),
            content_sha256_base64: BASE64.encode(hashes.sha256),
            content_length: i64::try_from(data.len()).unwrap_or(i64::MAX),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.blob_create(request).await
            })
            .await?;
        let mut last = Error::Unexpected("the server says nowhere to put a blob".to_owned());
        for (blob_id, way) in ways(answer) {
            let put = match &way {
                Way::Whole(address) => self.put_whole(address, &data, &hashes).await,
                Way::Parts(parts) => self.put_parts(parts, &data).await,
            };
            match put {
                Ok(()) => return Ok(blob_id),
                Err(error) => {
                    tracing::debug!(%error, blob_id, "a store failed, trying the next");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Fetches a blob.
    pub async fn blob_get(&self, blob_id: &str) -> Result<Bytes, Error> {
        get(&self.caller, &self.http, blob_id).await
    }

    async fn put_whole(&self, address: &str, data: &Bytes, hashes: &Hashes) -> Result<(), Error> {
        let upload = Upload {
            body: data.clone(),
            content_type: Some("application/octet-stream"),
            content_md5: takes_md5(address).then(|| BASE64.encode(hashes.md5)),
        };
        let (headers, _) = self
            .http
            .put(WHAT, address, &upload, Attempts::UPLOAD)
            .await?;
        let tag = etag(&headers)?;
        let md5: [u8; 16] = Md5::digest(data).into();
        if tag == hex::encode(md5) {
            return Ok(());
        }
        Err(differs(&tag))
    }

    async fn put_parts(&self, way: &wire::MultiPartUpload, data: &Bytes) -> Result<(), Error> {
        let length = usize::try_from(way.part_length)
            .ok()
            .filter(|length| *length > 0)
            .ok_or_else(|| Error::Unexpected("parts of no length".to_owned()))?;
        if data.len().div_ceil(length) > way.upload_urls.len() {
            return Err(Error::Unexpected(
                "too few addresses for a blob's parts".to_owned(),
            ));
        }
        let parts = way.upload_urls.iter().enumerate().map(|(index, address)| {
            let start = (index * length).min(data.len());
            let end = (start + length).min(data.len());
            self.put_part(address, data.slice(start..end))
        });
        let tags: Vec<[u8; 16]> = futures::stream::iter(parts.collect::<Vec<_>>())
            .buffered(PARTS_AT_ONCE)
            .try_collect()
            .await?;
        let mut list = String::from("<CompleteMultipartUpload>\n");
        for (number, tag) in (1..).zip(&tags) {
            let tag = hex::encode(tag);
            list += &format!(
                "<Part>\n<PartNumber>{number}</PartNumber>\n<ETag>\"{tag}\"</ETag>\n</Part>\n"
            );
        }
        list += "</CompleteMultipartUpload>";
        let answer = self
            .http
            .post(WHAT, &way.completion_url, list.into(), Attempts::UPLOAD)
            .await?;
        // The tag of the whole is the MD5 of the parts' MD5s and their number.
        let whole: [u8; 16] = Md5::digest(tags.concat()).into();
        let expected = format!("{}-{}", hex::encode(whole), tags.len());
        if String::from_utf8_lossy(&answer).contains(&expected) {
            return Ok(());
        }
        Err(differs(&expected))
    }

    async fn put_part(&self, address: &str, part: Bytes) -> Result<[u8; 16], Error> {
        let md5: [u8; 16] = Md5::digest(&part).into();
        let upload = Upload {
            body: part,
            // A part's signature does not cover a content type.
            content_type: None,
            content_md5: None,
        };
        let (headers, _) = self
            .http
            .put(WHAT, address, &upload, Attempts::UPLOAD)
            .await?;
        let tag = etag(&headers)?;
        if tag == hex::encode(md5) {
            return Ok(md5);
        }
        Err(differs(&tag))
    }
}

/// A container fetches blobs as well.
pub(crate) async fn get(caller: &Caller, http: &Http, blob_id: &str) -> Result<Bytes, Error> {
    let request = wire::BlobGetRequest {
        blob_id: blob_id.to_owned(),
        function_id: String::new(),
    };
    let answer = caller
        .short(request, async |mut stub, request| {
            stub.blob_get(request).await
        })
        .await?;
    let address = &answer.download_url;
    http.get(WHAT, address, usize::MAX, Attempts::DOWNLOAD)
        .await
}

struct Hashes {
    md5: [u8; 16],
    sha256: [u8; 32],
}

impl Hashes {
    fn of(data: &[u8]) -> Self {
        Self {
            md5: if data.len() > MD5_UP_TO {
                NO_MD5
            } else {
                Md5::digest(data).into()
            },
            sha256: Sha256::digest(data).into(),
        }
    }
}

/// The offers in order of preference; servers that know no lists make one.
fn ways(answer: wire::BlobCreateResponse) -> Vec<(String, Way)> {
    let offers: Vec<Way> = match answer.upload_types_oneof {
        Some(UploadTypesOneof::UploadUrls(list)) => {
            list.items.into_iter().map(Way::Whole).collect()
        }
        Some(UploadTypesOneof::Multiparts(list)) => {
            list.items.into_iter().map(Way::Parts).collect()
        }
        None => Vec::new(),
    };
    if !offers.is_empty() {
        return answer.blob_ids.into_iter().zip(offers).collect();
    }
    match answer.upload_type_oneof {
        Some(UploadTypeOneof::UploadUrl(address)) => {
            vec![(answer.blob_id, Way::Whole(address))]
        }
        Some(UploadTypeOneof::Multipart(parts)) => vec![(answer.blob_id, Way::Parts(parts))],
        None => Vec::new(),
    }
}

// modal: use_md5
fn takes_md5(address: &str) -> bool {
    let host = address
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split(['/', ':', '?']).next())
        .unwrap_or_default();
    host.ends_with(".amazonaws.com") || host.ends_with(".r2.cloudflarestorage.com")
}

/// The store's checksum of what it got.
fn etag(headers: &HeaderMap) -> Result<String, Error> {
    let tag = headers
        .get(header::ETAG)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| differs("none"))?
        .trim();
    let tag = tag
        .strip_prefix("W/")
        .or_else(|| tag.strip_prefix("w/"))
        .unwrap_or(tag);
    Ok(tag.trim_matches('"').to_owned())
}

fn differs(tag: &str) -> Error {
    Error::Transfer {
        what: WHAT.to_owned(),
        reason: format!("the store's checksum {tag} is not that of what was sent"),
    }
}

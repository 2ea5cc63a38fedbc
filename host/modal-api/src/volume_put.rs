//! Writing to a volume: all files of one call appear together, once the server has each of their blocks.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    Client, Error, Volume, VolumeVersion,
    files::{Upload, blocking},
    http::{self, Attempts},
    mounts::{Hashed, hash_all},
    retry::Policy,
    volumes::{BLOCK, relative},
    wire::{
        self,
        volume_put_files2_request::{Block, File},
        volume_put_files2_response::MissingBlock,
    },
};

/// Blocks are in memory while they are sent.
const BLOCKS_AT_ONCE: usize = 16;
/// One round says what is missing, one commits; one more in case that somebody changed what was there in between.
const ROUNDS: u32 = 3;

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    Allowed,
    /// [`Error::AlreadyExists`], and nothing is written.
    Refused,
}

/// A file and the hashes of its blocks.
#[derive(Debug, Clone)]
struct Prepared {
    upload: Upload,
    size: u64,
    blocks: Vec<[u8; 32]>,
}

impl Client {
    /// Writes files, all of them or none. Folders on the way are made.
    pub async fn volume_put(
        &self,
        volume: &Volume,
        files: Vec<Upload>,
        overwrite: Overwrite,
    ) -> Result<(), Error> {
        let files: Vec<Upload> = files
            .into_iter()
            .map(|file| Upload {
                remote_path: relative(&file.remote_path).to_owned(),
                ..file
            })
            .collect();
        if let Some(file) = files
            .iter()
            .find(|file| file.remote_path.is_empty() || file.remote_path.ends_with('/'))
        {
            return Err(Error::Invalid(format!(
                "'{}' names no file in a volume",
                file.remote_path
            )));
        }
        if files.is_empty() {
            return Ok(());
        }
        match volume.version {
            VolumeVersion::V2 => self.put_blocks(&volume.volume_id, files, overwrite).await,
            VolumeVersion::V1 => {
                self.put_whole_files(&volume.volume_id, files, overwrite)
                    .await
            }
        }
    }

    async fn put_blocks(
        &self,
        volume_id: &str,
        files: Vec<Upload>,
        overwrite: Overwrite,
    ) -> Result<(), Error> {
        let preparing = files
            .into_iter()
            .map(|file| blocking(move || prepare(file)));
        let prepared: Vec<Prepared> = futures::stream::iter(preparing.collect::<Vec<_>>())
            .buffered(4)
            .try_collect()
            .await?;
        // What the store said of each block, which is the proof that it was put.
        let mut proofs: HashMap<[u8; 32], Bytes> = HashMap::new();
        for _ in 0..ROUNDS {
            let request = wire::VolumePutFiles2Request {
                volume_id: volume_id.to_owned(),
                files: prepared
                    .iter()
                    .map(|file| described(file, &proofs))
                    .collect(),
                disallow_overwrite_existing_files: overwrite == Overwrite::Refused,
            };
            let missing = self
                .caller
                .call(
                    Policy::FILES,
                    Uuid::new_v4(),
                    request,
                    async |mut stub, request| stub.volume_put_files2(request).await,
                )
                .await?
                .missing_blocks;
            if missing.is_empty() {
                return Ok(());
            }
            let puts = missing
                .into_iter()
                .map(|missing| self.put_missing(&prepared, missing));
            let fresh: Vec<([u8; 32], Bytes)> = futures::stream::iter(puts.collect::<Vec<_>>())
                .buffer_unordered(BLOCKS_AT_ONCE)
                .try_collect()
                .await?;
            proofs.extend(fresh);
        }
        Err(Error::Unexpected(
            "the volume asks for blocks that it was sent".to_owned(),
        ))
    }

    async fn put_missing(
        &self,
        files: &[Prepared],
        missing: MissingBlock,
    ) -> Result<([u8; 32], Bytes), Error> {
        let index = usize::try_from(missing.block_index).unwrap_or(usize::MAX);
        let (file, hash) = usize::try_from(missing.file_index)
            .ok()
            .and_then(|position| files.get(position))
            .and_then(|file| Some((file, *file.blocks.get(index)?)))
            .ok_or_else(|| Error::Unexpected("a block that no file has".to_owned()))?;
        let upload = file.upload.clone();
        let body = blocking(move || block(&upload, missing.block_index)).await?;
        if <[u8; 32]>::from(Sha256::digest(&body)) != hash {
            return Err(Error::Transfer {
                what: file.upload.remote_path.clone(),
                reason: "the file changed while it was sent".to_owned(),
            });
        }
        let put = http::Upload {
            body,
            content_type: Some("application/octet-stream"),
            content_md5: None,
        };
        let (_, proof) = self
            .http
            .put(
                &file.upload.remote_path,
                &missing.put_url,
                &put,
                Attempts::BLOCK,
            )
            .await?;
        Ok((hash, proof))
    }

    async fn put_whole_files(
        &self,
        volume_id: &str,
        files: Vec<Upload>,
        overwrite: Overwrite,
    ) -> Result<(), Error> {
        let hashed = hash_all(files).await?;
        self.ensure_contents(&hashed).await?;
        let request = wire::VolumePutFilesRequest {
            volume_id: volume_id.to_owned(),
            files: hashed.iter().map(Hashed::mount_file).collect(),
            disallow_overwrite_existing_files: overwrite == Overwrite::Refused,
            earliest_checked_at: None,
        };
        self.caller
            .call(
                Policy::FILES,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.volume_put_files(request).await,
            )
            .await
    }
}

fn prepare(upload: Upload) -> Result<Prepared, Error> {
    let size = upload.size()?;
    let blocks = (0..size.div_ceil(BLOCK))
        .map(|index| Ok(Sha256::digest(block(&upload, index)?).into()))
        .collect::<Result<_, Error>>()?;
    Ok(Prepared {
        upload,
        size,
        blocks,
    })
}

/// A block without the zeros at its end: that is what is hashed and sent.
fn block(upload: &Upload, index: u64) -> Result<Bytes, Error> {
    let bytes = upload.read(index * BLOCK, usize::try_from(BLOCK).unwrap_or(usize::MAX))?;
    let length = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    Ok(bytes.slice(..length))
}

fn described(file: &Prepared, proofs: &HashMap<[u8; 32], Bytes>) -> File {
    File {
        path: file.upload.remote_path.clone(),
        size: file.size,
        blocks: file
            .blocks
            .iter()
            .map(|hash| Block {
                contents_sha256: Bytes::copy_from_slice(hash),
                put_response: proofs.get(hash).cloned(),
            })
            .collect(),
        mode: Some(file.upload.mode),
    }
}

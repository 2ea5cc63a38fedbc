//! Files in volumes: put, got, removed.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use modal_api::wire;
use tonic::Status;

use crate::{
    ask::Ask,
    contents::{Contents, hex},
    volumes::{BLOCK_BYTES, existing, file, inside, landing, root, unusable},
};

/// As on Modal.
const MAX_FILE_BYTES: u64 = 1 << 40;

/// The first version: whole contents that were uploaded before.
pub(crate) fn put(ask: &Ask, request: wire::VolumePutFilesRequest) -> Result<(), Status> {
    let root = root(&ask.core, &ask.core.lock(), &request.volume_id)?;
    let contents = &ask.core.contents;
    let mut placings = Vec::new();
    for file in &request.files {
        let placing = Placing::new(
            &root,
            &file.filename,
            file.mode,
            request.disallow_overwrite_existing_files,
        )?;
        if !contents.has(&file.sha256_hex)? {
            return Err(Status::failed_precondition(format!(
                "the content of '{}' was not uploaded",
                file.filename
            )));
        }
        placings.push((placing, contents.path(&file.sha256_hex)?));
    }
    let failed = || unusable(&request.volume_id);
    let mut ready = Vec::new();
    for (placing, content) in placings {
        let fresh = contents.fresh();
        fs::copy(content, &fresh).map_err(failed())?;
        ready.push((placing, fresh));
    }
    place_all(ready).map_err(failed())
}

/// The second version: blocks. Answers those that are missing, or puts all files.
pub(crate) fn put2(
    ask: &Ask,
    request: wire::VolumePutFiles2Request,
) -> Result<wire::VolumePutFiles2Response, Status> {
    let root = root(&ask.core, &ask.core.lock(), &request.volume_id)?;
    let contents = &ask.core.contents;
    let mut placings = Vec::new();
    let mut missing_blocks = Vec::new();
    for (file_index, file) in (0..).zip(&request.files) {
        if file.size > MAX_FILE_BYTES || file.blocks.len() as u64 != file.size.div_ceil(BLOCK_BYTES)
        {
            return Err(Status::invalid_argument(format!(
                "'{}': {} blocks do not make {} bytes",
                file.path,
                file.blocks.len(),
                file.size
            )));
        }
        placings.push(Placing::new(
            &root,
            &file.path,
            file.mode,
            request.disallow_overwrite_existing_files,
        )?);
        for (block_index, block) in (0..).zip(&file.blocks) {
            let hash = hex(&block.contents_sha256);
            if !contents.has(&hash)? {
                missing_blocks.push(wire::volume_put_files2_response::MissingBlock {
                    file_index,
                    block_index,
                    put_url: ask.core.url(&format!("block/{hash}"))?,
                });
            }
        }
    }
    if missing_blocks.is_empty() {
        let failed = || unusable(&request.volume_id);
        let mut ready = Vec::new();
        for (placing, file) in placings.into_iter().zip(&request.files) {
            let fresh = contents.fresh();
            assemble(contents, file, &fresh)?;
            ready.push((placing, fresh));
        }
        place_all(ready).map_err(failed())?;
    }
    Ok(wire::VolumePutFiles2Response { missing_blocks })
}

/// Blocks come without their last zero bytes; the file's length brings them back.
fn assemble(
    contents: &Contents,
    file: &wire::volume_put_files2_request::File,
    fresh: &Path,
) -> Result<(), Status> {
    let failed = |error: io::Error| {
        Status::unavailable(format!("'{}' cannot be written: {error}", file.path))
    };
    let target = File::create(fresh).map_err(failed)?;
    for (number, block) in (0..).zip(&file.blocks) {
        let path = contents.path(&hex(&block.contents_sha256))?;
        let bytes = fs::read(path).map_err(failed)?;
        let start = number * BLOCK_BYTES;
        if bytes.len() as u64 > file.size - start {
            return Err(Status::invalid_argument(format!(
                "'{}': a block is longer than the file",
                file.path
            )));
        }
        target.write_all_at(&bytes, start).map_err(failed)?;
    }
    target.set_len(file.size).map_err(failed)
}

/// Where a file goes.
struct Placing {
    target: PathBuf,
    mode: u32,
}

impl Placing {
    fn new(root: &Path, path: &str, mode: Option<u32>, keeps: bool) -> Result<Self, Status> {
        let relative = inside(path)?;
        if relative.as_os_str().is_empty() {
            return Err(Status::invalid_argument(format!("'{path}' names no file")));
        }
        let target = landing(root, &relative)?;
        if target.is_dir() {
            return Err(Status::invalid_argument(format!(
                "'{path}' is a directory, no file"
            )));
        }
        if keeps && target.symlink_metadata().is_ok() {
            return Err(Status::already_exists(format!("'{path}' already exists")));
        }
        Ok(Self {
            target,
            mode: mode.unwrap_or(0o644) & 0o777,
        })
    }
}

/// Everything is written by now: what is left are renames.
fn place_all(ready: Vec<(Placing, PathBuf)>) -> io::Result<()> {
    for (placing, fresh) in ready {
        if let Some(parent) = placing.target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::set_permissions(&fresh, Permissions::from_mode(placing.mode))?;
        fs::rename(fresh, placing.target)?;
    }
    Ok(())
}

/// The first version's way to read: the content in the answer. Files that do not fit are got in parts.
pub(crate) fn get(
    ask: &Ask,
    request: wire::VolumeGetFileRequest,
) -> Result<wire::VolumeGetFileResponse, Status> {
    let path = file(
        &ask.core,
        &ask.core.lock(),
        &request.volume_id,
        &request.path,
    )?;
    let failed = || unusable(&request.volume_id);
    let file = File::open(path).map_err(failed())?;
    let size = file.metadata().map_err(failed())?.len();
    let (start, len) = part(size, request.start, request.len);
    if len > modal_api::MAX_MESSAGE_BYTES as u64 / 2 {
        return Err(Status::invalid_argument(
            "the part does not fit into a message: ask for a shorter one",
        ));
    }
    let mut data = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut data, start).map_err(failed())?;
    Ok(wire::VolumeGetFileResponse {
        data_oneof: Some(wire::volume_get_file_response::DataOneof::Data(data.into())),
        size,
        start,
        len,
    })
}

/// An address for each block that the part touches.
pub(crate) fn get2(
    ask: &Ask,
    request: wire::VolumeGetFile2Request,
) -> Result<wire::VolumeGetFile2Response, Status> {
    let path = file(
        &ask.core,
        &ask.core.lock(),
        &request.volume_id,
        &request.path,
    )?;
    let size = fs::metadata(path)
        .map_err(unusable(&request.volume_id))?
        .len();
    let (start, len) = part(size, request.start, request.len);
    let relative = inside(&request.path)?;
    let relative = escape(&relative.to_string_lossy());
    let mut get_urls = Vec::new();
    let (mut from, end) = (start, start + len);
    while from < end {
        // Blocks lie where they do in the file, not where the part begins.
        let to = ((from / BLOCK_BYTES + 1) * BLOCK_BYTES).min(end);
        let address = format!("part/{}/{from}/{}/{relative}", request.volume_id, to - from);
        get_urls.push(ask.core.url(&address)?);
        from = to;
    }
    Ok(wire::VolumeGetFile2Response {
        get_urls,
        size,
        start,
        len,
    })
}

/// A length of zero: up to the end.
fn part(size: u64, start: u64, len: u64) -> (u64, u64) {
    let start = start.min(size);
    let rest = size - start;
    (start, if len == 0 { rest } else { len.min(rest) })
}

/// A path as part of a URL.
fn escape(path: &str) -> String {
    let mut url = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_./~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

pub(crate) fn remove(ask: &Ask, request: wire::VolumeRemoveFileRequest) -> Result<(), Status> {
    remove_path(ask, &request.volume_id, &request.path, request.recursive)
}

pub(crate) fn remove2(ask: &Ask, request: wire::VolumeRemoveFile2Request) -> Result<(), Status> {
    remove_path(ask, &request.volume_id, &request.path, request.recursive)
}

fn remove_path(ask: &Ask, volume_id: &str, path: &str, recursive: bool) -> Result<(), Status> {
    let root = root(&ask.core, &ask.core.lock(), volume_id)?;
    let relative = inside(path)?;
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
        return Err(Status::invalid_argument(
            "the volume's root cannot be removed: delete the volume",
        ));
    };
    // The last part may be a link: that is removed, not what it leads to.
    let place = existing(&root, parent)?.join(name);
    let metadata = fs::symlink_metadata(&place)
        .map_err(|_| Status::not_found(format!("no such file or directory: '{path}'")))?;
    let removed = if !metadata.is_dir() {
        fs::remove_file(place)
    } else if recursive {
        fs::remove_dir_all(place)
    } else {
        return Err(Status::invalid_argument(format!(
            "'{path}' is a directory: remove it recursively"
        )));
    };
    removed.map_err(unusable(volume_id))
}

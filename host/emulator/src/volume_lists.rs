//! What lies in volumes, told in batches.

use std::{fs, io, path::Path, time::UNIX_EPOCH};

use modal_api::wire::{self, file_entry::FileType};
use tonic::Status;

use crate::{
    ask::Ask,
    volumes::{existing, inside, root, unusable},
};

const BATCH: usize = 1000;

pub(crate) fn list(
    ask: &Ask,
    request: wire::VolumeListFilesRequest,
) -> Result<Vec<wire::VolumeListFilesResponse>, Status> {
    let depth = Depth::of(request.recursive, request.max_entries);
    let found = entries(ask, &request.volume_id, &request.path, depth)?;
    let batch = |entries: &[_]| wire::VolumeListFilesResponse {
        entries: entries.to_vec(),
    };
    Ok(found.chunks(BATCH).map(batch).collect())
}

pub(crate) fn list2(
    ask: &Ask,
    request: wire::VolumeListFiles2Request,
) -> Result<Vec<wire::VolumeListFiles2Response>, Status> {
    let request = wire::VolumeListFilesRequest {
        volume_id: request.volume_id,
        path: request.path,
        recursive: request.recursive,
        max_entries: request.max_entries,
    };
    let batch = |told: wire::VolumeListFilesResponse| wire::VolumeListFiles2Response {
        entries: told.entries,
    };
    Ok(list(ask, request)?.into_iter().map(batch).collect())
}

/// How far a listing goes.
struct Depth {
    recursive: bool,
    most: usize,
}

impl Depth {
    fn of(recursive: bool, most: Option<u32>) -> Self {
        let most = most
            .and_then(|most| usize::try_from(most).ok())
            .filter(|most| *most > 0);
        Self {
            recursive,
            most: most.unwrap_or(usize::MAX),
        }
    }
}

fn entries(
    ask: &Ask,
    volume_id: &str,
    path: &str,
    depth: Depth,
) -> Result<Vec<wire::FileEntry>, Status> {
    let root = root(&ask.core, &ask.core.lock(), volume_id)?;
    let relative = inside(path)?;
    let place = existing(&root, &relative)?;
    let mut found = Vec::new();
    if place.is_dir() {
        walk(&place, &relative, &depth, &mut found).map_err(unusable(volume_id))?;
    } else {
        let metadata = fs::symlink_metadata(&place).map_err(unusable(volume_id))?;
        found.push(entry(&relative, &metadata));
    }
    Ok(found)
}

fn walk(
    folder: &Path,
    relative: &Path,
    depth: &Depth,
    found: &mut Vec<wire::FileEntry>,
) -> io::Result<()> {
    let mut children: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    children.sort_by_key(fs::DirEntry::file_name);
    for child in children {
        if found.len() >= depth.most {
            break;
        }
        let Ok(metadata) = child.metadata() else {
            // Removed while we looked.
            continue;
        };
        let path = relative.join(child.file_name());
        found.push(entry(&path, &metadata));
        if depth.recursive && metadata.is_dir() {
            walk(&child.path(), &path, depth, found)?;
        }
    }
    Ok(())
}

fn entry(path: &Path, metadata: &fs::Metadata) -> wire::FileEntry {
    let kind = if metadata.is_dir() {
        FileType::Directory
    } else if metadata.is_symlink() {
        FileType::Symlink
    } else {
        FileType::File
    };
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    wire::FileEntry {
        path: path.to_string_lossy().into_owned(),
        r#type: kind.into(),
        mtime: modified.map_or(0, |time| time.as_secs()),
        size: if metadata.is_file() {
            metadata.len()
        } else {
            0
        },
    }
}

//! Volumes: a folder each, below `<state>/volumes`. What is put there is there for containers at once, and the other way round.
//!
//! Both of Modal's versions keep the same files; they differ in how files are uploaded. Paths come from strangers: they stay inside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use modal_api::wire::{self, VolumeFsVersion};
use tonic::Status;

use crate::{
    ask::Ask,
    core::{Core, Inner},
    objects::{self, Kind, ObjectRow, Wanted},
    rows::Change,
};

/// A file of the second version goes up and down in blocks of this size.
pub(crate) const BLOCK_BYTES: u64 = 8 << 20;

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::VolumeGetOrCreateRequest,
) -> Result<wire::VolumeGetOrCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    let version = match request.version() {
        VolumeFsVersion::Unspecified | VolumeFsVersion::V1 => VolumeFsVersion::V1,
        VolumeFsVersion::V2 => VolumeFsVersion::V2,
    };
    let wanted = Wanted {
        kind: Kind::Volume,
        name: &request.deployment_name,
        environment: &request.environment_name,
        creation: request.object_creation_type,
        app_id: &request.app_id,
        version: version.into(),
    };
    let found = objects::get_or_create(ask, &mut guard, &wanted, &mut change)?;
    let folder = ask.core.volume_dir(&found.id);
    fs::create_dir_all(&folder).map_err(unusable(&found.id))?;
    ask.commit(&mut guard, change)?;
    Ok(wire::VolumeGetOrCreateResponse {
        version: found.row.version,
        metadata: Some(metadata(&found.row)),
        volume_id: found.id,
    })
}

pub(crate) fn get_by_id(
    ask: &Ask,
    request: wire::VolumeGetByIdRequest,
) -> Result<wire::VolumeGetByIdResponse, Status> {
    let row = objects::get(
        &ask.core.lock().state.rows,
        Kind::Volume,
        &request.volume_id,
    )?;
    Ok(wire::VolumeGetByIdResponse {
        metadata: Some(metadata(&row)),
        volume_id: request.volume_id,
    })
}

pub(crate) fn heartbeat(ask: &Ask, request: wire::VolumeHeartbeatRequest) -> Result<(), Status> {
    objects::heartbeat(ask, Kind::Volume, &request.volume_id)
}

pub(crate) fn list(
    ask: &Ask,
    request: wire::VolumeListRequest,
) -> Result<wire::VolumeListResponse, Status> {
    let (environment_name, page) = objects::page(
        &ask.core.lock(),
        Kind::Volume,
        &request.environment_name,
        request.pagination,
    )?;
    let items = page
        .into_iter()
        .map(|(volume_id, row)| wire::VolumeListItem {
            metadata: Some(metadata(&row)),
            label: row.name,
            volume_id,
            created_at: row.created_at,
        })
        .collect();
    Ok(wire::VolumeListResponse {
        items,
        environment_name,
    })
}

pub(crate) fn delete(ask: &Ask, request: wire::VolumeDeleteRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    objects::delete(
        &guard.state.rows,
        Kind::Volume,
        &request.volume_id,
        &mut change,
    )?;
    ask.commit(&mut guard, change)?;
    drop(guard);
    remove_folder(&ask.core, &request.volume_id);
    Ok(())
}

pub(crate) fn rename(ask: &Ask, request: wire::VolumeRenameRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    objects::rename(
        &guard.state.rows,
        Kind::Volume,
        &request.volume_id,
        &request.name,
        &mut change,
    )?;
    ask.commit(&mut guard, change)
}

/// What a container writes is in the folder already.
pub(crate) fn commit(
    ask: &Ask,
    request: wire::VolumeCommitRequest,
) -> Result<wire::VolumeCommitResponse, Status> {
    root(&ask.core, &ask.core.lock(), &request.volume_id)?;
    Ok(wire::VolumeCommitResponse { skip_reload: true })
}

/// What others have put is in the folder already.
pub(crate) fn reload(ask: &Ask, request: wire::VolumeReloadRequest) -> Result<(), Status> {
    root(&ask.core, &ask.core.lock(), &request.volume_id).map(drop)
}

/// Removes the folders of volumes that are no more: ephemeral ones, and those whose end was not seen to.
pub(crate) fn clean(core: &Core, inner: &Inner) {
    let Ok(entries) = fs::read_dir(core.volumes_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str() else { continue };
        if objects::get(&inner.state.rows, Kind::Volume, id).is_err() {
            remove_folder(core, id);
        }
    }
}

fn remove_folder(core: &Core, volume_id: &str) {
    if let Err(error) = fs::remove_dir_all(core.volume_dir(volume_id)) {
        tracing::warn!(%error, volume_id, "the files of a deleted volume are still there");
    }
}

/// The folder of a volume that exists.
pub(crate) fn root(core: &Core, inner: &Inner, volume_id: &str) -> Result<PathBuf, Status> {
    objects::get(&inner.state.rows, Kind::Volume, volume_id)?;
    Ok(core.volume_dir(volume_id))
}

/// A file that exists in a volume.
pub(crate) fn file(
    core: &Core,
    inner: &Inner,
    volume_id: &str,
    path: &str,
) -> Result<PathBuf, Status> {
    let root = root(core, inner, volume_id)?;
    let relative = inside(path)?;
    let file = existing(&root, &relative)?;
    if file.is_dir() {
        return Err(Status::invalid_argument(format!(
            "'{path}' is a directory, no file"
        )));
    }
    Ok(file)
}

/// A path of a volume without its leading slash and its dots; it cannot lead out.
pub(crate) fn inside(path: &str) -> Result<PathBuf, Status> {
    let refuse = |why| Err(Status::invalid_argument(format!("path '{path}' {why}")));
    if path.contains('\0') {
        return refuse("holds a zero byte");
    }
    let mut inside = PathBuf::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse("leads out of the volume"),
            part if part.len() > 255 => return refuse("has a part of more than 255 bytes"),
            part => inside.push(part),
        }
    }
    Ok(inside)
}

/// The place of something that exists; a link in a volume may not lead out of it either.
pub(crate) fn existing(root: &Path, relative: &Path) -> Result<PathBuf, Status> {
    let not_found = || {
        Status::not_found(format!(
            "no such file or directory: '{}'",
            relative.display()
        ))
    };
    let place = root
        .join(relative)
        .canonicalize()
        .map_err(|_| not_found())?;
    let root = root.canonicalize().map_err(|_| not_found())?;
    if place.starts_with(root) {
        Ok(place)
    } else {
        Err(not_found())
    }
}

/// Where something new may lie. Through a link the way could lead out: what exists of it must be a directory inside.
pub(crate) fn landing(root: &Path, relative: &Path) -> Result<PathBuf, Status> {
    let mut nearest = relative.parent().unwrap_or(Path::new(""));
    while !root.join(nearest).exists() {
        let Some(above) = nearest.parent() else { break };
        nearest = above;
    }
    let rest = relative.strip_prefix(nearest).unwrap_or(relative);
    let folder = existing(root, nearest)?;
    if !folder.is_dir() {
        return Err(Status::invalid_argument(format!(
            "'{}' is a file, no directory",
            nearest.display()
        )));
    }
    // A path joined with nothing would end with a slash.
    Ok(if rest.as_os_str().is_empty() {
        folder
    } else {
        folder.join(rest)
    })
}

pub(crate) fn unusable(volume_id: &str) -> impl FnOnce(std::io::Error) -> Status {
    move |error| Status::unavailable(format!("volume {volume_id} cannot be used: {error}"))
}

pub(crate) fn metadata(row: &ObjectRow) -> wire::VolumeMetadata {
    wire::VolumeMetadata {
        version: row.version,
        name: row.name.clone(),
        creation_info: Some(row.creation_info()),
    }
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn a_path_stays_inside() {
        let shown: Vec<_> = ["/", "a//b/./c/", "../x", "a/../../x", "a\0", "ü/ "]
            .into_iter()
            .map(|path| {
                inside(path).map_or("refused".to_owned(), |path| path.display().to_string())
            })
            .collect();
        assert_eq!(shown, ["", "a/b/c", "refused", "refused", "refused", "ü/ "]);
    }
}

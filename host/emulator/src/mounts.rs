//! Mounts: sets of files that containers find at their paths. Contents are uploaded first, by their hash.

use std::collections::HashSet;

use modal_api::wire::{self, ObjectCreationType, mount_put_file_request::DataOneof};
use prost_types::Timestamp;
use tonic::Status;

use crate::{
    ask::Ask,
    blobs, ids,
    images::ImageRow,
    rows::{Change, Row, Rows, Table, key},
    session,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MountRow {
    #[prost(message, repeated, tag = "1")]
    pub(crate) files: Vec<wire::MountFile>,
    #[prost(string, tag = "2")]
    app_id: String,
    #[prost(string, tag = "3")]
    name: String,
}

impl Row for MountRow {
    const TABLE: Table = Table::Mounts;
}

#[cfg(test)]
impl MountRow {
    pub(crate) fn of_app(app_id: &str) -> Self {
        Self {
            app_id: app_id.to_owned(),
            ..Default::default()
        }
    }
}

pub(crate) fn check_existence(
    ask: &Ask,
    request: wire::MountBatchedCheckExistenceRequest,
) -> Result<wire::MountBatchedCheckExistenceResponse, Status> {
    let mut missing = Vec::new();
    for hash in request.sha256_hex_hashes {
        if !ask.core.contents.has(&hash)? {
            missing.push(hash);
        }
    }
    Ok(wire::MountBatchedCheckExistenceResponse {
        missing_sha256_hex_hashes: missing,
        checked_at: Some(timestamp(ask.wall())),
    })
}

/// Without data it is a question, with data an upload.
pub(crate) fn put_file(
    ask: &Ask,
    request: wire::MountPutFileRequest,
) -> Result<wire::MountPutFileResponse, Status> {
    let contents = &ask.core.contents;
    let hash = &request.sha256_hex;
    match request.data_oneof {
        None => {}
        Some(DataOneof::Data(bytes)) => contents.put(hash, &bytes)?,
        Some(DataOneof::DataBlobId(blob_id)) if !contents.has(hash)? => {
            let (row, path) = blobs::find(&ask.core, &ask.core.lock(), &blob_id)?;
            if row.sha256 != *hash {
                return Err(Status::invalid_argument(format!(
                    "blob {blob_id} holds another content than {hash}"
                )));
            }
            contents.take(hash, &path)?;
        }
        Some(DataOneof::DataBlobId(_)) => {}
    }
    Ok(wire::MountPutFileResponse {
        exists: contents.has(hash)?,
        checked_at: Some(timestamp(ask.wall())),
    })
}

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::MountGetOrCreateRequest,
) -> Result<wire::MountGetOrCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let creation = request.object_creation_type();
    let name = &request.deployment_name;
    let mut change = Change::default();
    // Modal's own files, like its client: here the emulator's Python has what is needed of them.
    let is_modals = request.namespace() == wire::DeploymentNamespace::Global;
    let mount_id = if name.is_empty() {
        if !matches!(
            creation,
            ObjectCreationType::AnonymousOwnedByApp | ObjectCreationType::Ephemeral
        ) {
            return Err(Status::invalid_argument(
                "a mount without a name is made for an app",
            ));
        }
        ids::object("mo")
    } else {
        let environment = session::environment_name(&request.environment_name);
        ids::mount(if is_modals { "" } else { environment }, name)
    };
    let is_there = guard
        .state
        .rows
        .has::<MountRow>(key(&[mount_id.as_bytes()]));
    if is_modals && !name.is_empty() {
        if !is_there {
            let row = MountRow {
                name: name.clone(),
                ..Default::default()
            };
            change.put(key(&[mount_id.as_bytes()]), &row);
        }
    } else if !is_there && creation == ObjectCreationType::Unspecified {
        return Err(Status::not_found(format!("Mount '{name}' not found")));
    } else if is_there && creation == ObjectCreationType::CreateFailIfExists {
        return Err(Status::already_exists(format!(
            "Mount '{name}' already exists"
        )));
    } else if !is_there || creation == ObjectCreationType::CreateOverwriteIfExists {
        for file in &request.files {
            if !ask.core.contents.has(&file.sha256_hex)? {
                return Err(Status::failed_precondition(format!(
                    "the content of '{}' was not uploaded",
                    file.filename
                )));
            }
        }
        let row = MountRow {
            files: request.files,
            app_id: request.app_id,
            name: name.clone(),
        };
        change.put(key(&[mount_id.as_bytes()]), &row);
    }
    ask.commit(&mut guard, change)?;
    Ok(wire::MountGetOrCreateResponse {
        mount_id,
        handle_metadata: Some(wire::MountHandleMetadata::default()),
    })
}

/// The files of a mount; none of one that is gone, or of the client's own.
pub(crate) fn files(rows: &Rows, mount_id: &str) -> Vec<wire::MountFile> {
    rows.get::<MountRow>(key(&[mount_id.as_bytes()]))
        .map_or_else(Vec::new, |row| row.files)
}

/// Is there such a mount? The client's own always is.
pub(crate) fn check(rows: &Rows, mount_id: &str) -> Result<(), Status> {
    if rows.has::<MountRow>(key(&[mount_id.as_bytes()])) {
        return Ok(());
    }
    Err(Status::not_found(format!("Mount {mount_id} not found")))
}

/// Adds the rows that end the mounts that were made for an app, but for those that an image copies from: images outlive apps.
pub(crate) fn forget_owned(rows: &Rows, app_id: &str, change: &mut Change) {
    let copied: HashSet<Vec<u8>> = rows
        .scan::<ImageRow>(b"")
        .flat_map(|(_, image)| image.copies)
        .map(|copy| key(&[copy.mount_id.as_bytes()]))
        .collect();
    for (mount, row) in rows.scan::<MountRow>(b"") {
        if row.app_id == app_id && row.name.is_empty() && !copied.contains(mount) {
            change.delete::<MountRow>(mount);
        }
    }
}

/// The contents that mounts need.
pub(crate) fn used_contents(rows: &Rows) -> HashSet<String> {
    rows.scan::<MountRow>(b"")
        .flat_map(|(_, row)| row.files)
        .map(|file| file.sha256_hex)
        .collect()
}

pub(crate) fn timestamp(seconds: f64) -> Timestamp {
    Timestamp {
        seconds: seconds as i64,
        nanos: (seconds.fract() * 1e9) as i32,
    }
}

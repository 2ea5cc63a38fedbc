//! Volumes: folders that containers share. Both versions of their file system are listed and cleaned up here;
//! reading stands in `volume_get`, writing in `volume_put`.

use chrono::{DateTime, Utc};
use futures::StreamExt as _;

use crate::{Client, Creation, Error, listing::Page, names, outcome::instant, wire};

pub use crate::wire::file_entry::FileType;

/// Contents are kept in blocks of this size.
pub(crate) const BLOCK: u64 = 8 << 20;

/// Which file system a volume has; the second one takes any number of writers at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeVersion {
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub volume_id: String,
    pub version: VolumeVersion,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVolume {
    pub volume_id: String,
    pub name: String,
    pub version: VolumeVersion,
    pub created_at: Option<DateTime<Utc>>,
}

/// What lies in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeEntry {
    /// Relative to the volume's root.
    pub path: String,
    pub kind: FileType,
    pub size: u64,
    pub modified_at: Option<DateTime<Utc>>,
}

/// Whether a folder's folders are gone through as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Flat,
    Recursive,
}

impl Client {
    /// Looks a volume up or makes it. The version counts only for one that is made; none is the server's choice.
    pub async fn volume_get_or_create(
        &self,
        name: &str,
        environment: &str,
        creation: Creation,
        version: Option<VolumeVersion>,
    ) -> Result<Volume, Error> {
        names::object("volume", name)?;
        let version = match version {
            None => wire::VolumeFsVersion::Unspecified,
            Some(VolumeVersion::V1) => wire::VolumeFsVersion::V1,
            Some(VolumeVersion::V2) => wire::VolumeFsVersion::V2,
        };
        let request = wire::VolumeGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: environment.to_owned(),
            object_creation_type: creation.wire().into(),
            app_id: String::new(),
            version: version.into(),
            create_options: Some(wire::VolumeCreateOptions::default()),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.volume_get_or_create(request).await
            })
            .await
            .map_err(|error| {
                error.looking_for(
                    "volume",
                    name,
                    environment,
                    "`modal volume list` shows the volumes, `modal volume create` makes one",
                )
            })?;
        let metadata = answer.metadata.as_ref().map_or(0, |one| one.version);
        Ok(Volume {
            version: read_version(metadata.max(answer.version)),
            volume_id: answer.volume_id,
        })
    }

    pub async fn volume_list(&self, environment: &str) -> Result<Vec<ListedVolume>, Error> {
        let mut page = Page::default();
        let mut all = Vec::new();
        while let Some(pagination) = page.next() {
            let request = wire::VolumeListRequest {
                environment_name: environment.to_owned(),
                pagination: Some(pagination),
            };
            let answer = self
                .caller
                .short(request, async |mut stub, request| {
                    stub.volume_list(request).await
                })
                .await?;
            page.seen(answer.items.iter().map(|item| item.created_at));
            all.extend(answer.items.into_iter().map(|item| ListedVolume {
                version: read_version(item.metadata.map_or(0, |metadata| metadata.version)),
                volume_id: item.volume_id,
                name: item.label,
                created_at: instant(item.created_at),
            }));
        }
        Ok(all)
    }

    /// What lies in a folder (empty: the root), or the one file that the path names.
    pub async fn volume_files(
        &self,
        volume: &Volume,
        path: &str,
        depth: Depth,
    ) -> Result<Vec<VolumeEntry>, Error> {
        let volume_id = volume.volume_id.clone();
        let path = relative(path).to_owned();
        let recursive = depth == Depth::Recursive;
        let mut all: Vec<wire::FileEntry> = Vec::new();
        match volume.version {
            VolumeVersion::V2 => {
                let request = wire::VolumeListFiles2Request {
                    volume_id,
                    path,
                    recursive,
                    max_entries: None,
                };
                let mut stream = self
                    .caller
                    .stream(request, async |mut stub, request| {
                        stub.volume_list_files2(request).await
                    })
                    .await?;
                while let Some(answer) = stream.next().await {
                    all.extend(
                        answer
                            .map_err(|status| self.caller.failure(status))?
                            .entries,
                    );
                }
            }
            VolumeVersion::V1 => {
                let request = wire::VolumeListFilesRequest {
                    volume_id,
                    path,
                    recursive,
                    max_entries: None,
                };
                let mut stream = self
                    .caller
                    .stream(request, async |mut stub, request| {
                        stub.volume_list_files(request).await
                    })
                    .await?;
                while let Some(answer) = stream.next().await {
                    all.extend(
                        answer
                            .map_err(|status| self.caller.failure(status))?
                            .entries,
                    );
                }
            }
        }
        Ok(all
            .into_iter()
            .map(|entry| VolumeEntry {
                kind: entry.r#type(),
                size: entry.size,
                modified_at: i64::try_from(entry.mtime)
                    .ok()
                    .and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
                path: entry.path,
            })
            .collect())
    }

    pub async fn volume_remove(
        &self,
        volume: &Volume,
        path: &str,
        depth: Depth,
    ) -> Result<(), Error> {
        let volume_id = volume.volume_id.clone();
        let path = relative(path).to_owned();
        let recursive = depth == Depth::Recursive;
        match volume.version {
            VolumeVersion::V2 => {
                let request = wire::VolumeRemoveFile2Request {
                    volume_id,
                    path,
                    recursive,
                };
                self.caller
                    .long(request, async |mut stub, request| {
                        stub.volume_remove_file2(request).await
                    })
                    .await
            }
            VolumeVersion::V1 => {
                let request = wire::VolumeRemoveFileRequest {
                    volume_id,
                    path,
                    recursive,
                };
                self.caller
                    .long(request, async |mut stub, request| {
                        stub.volume_remove_file(request).await
                    })
                    .await
            }
        }
    }

    /// Copies within a volume.
    pub async fn volume_copy(
        &self,
        volume: &Volume,
        sources: &[&str],
        target: &str,
        depth: Depth,
    ) -> Result<(), Error> {
        let volume_id = volume.volume_id.clone();
        let src_paths = sources
            .iter()
            .map(|path| relative(path).to_owned())
            .collect();
        let dst_path = relative(target).to_owned();
        let recursive = depth == Depth::Recursive;
        match volume.version {
            VolumeVersion::V2 => {
                let request = wire::VolumeCopyFiles2Request {
                    volume_id,
                    src_paths,
                    dst_path,
                    recursive,
                };
                self.caller
                    .long(request, async |mut stub, request| {
                        stub.volume_copy_files2(request).await
                    })
                    .await
            }
            VolumeVersion::V1 => {
                let request = wire::VolumeCopyFilesRequest {
                    volume_id,
                    src_paths,
                    dst_path,
                    recursive,
                };
                self.caller
                    .long(request, async |mut stub, request| {
                        stub.volume_copy_files(request).await
                    })
                    .await
            }
        }
    }

    pub async fn volume_rename(&self, volume_id: &str, name: &str) -> Result<(), Error> {
        names::object("volume", name)?;
        let request = wire::VolumeRenameRequest {
            volume_id: volume_id.to_owned(),
            name: name.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.volume_rename(request).await
            })
            .await
    }

    /// Deletes a volume with all that lies in it.
    pub async fn volume_delete(&self, volume_id: &str) -> Result<(), Error> {
        let request = wire::VolumeDeleteRequest {
            volume_id: volume_id.to_owned(),
            environment_name: String::new(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.volume_delete(request).await
            })
            .await
    }
}

/// Paths are sent without a slash at their start: not every server takes it away.
pub(crate) fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn read_version(version: i32) -> VolumeVersion {
    if version == i32::from(wire::VolumeFsVersion::V2) {
        VolumeVersion::V2
    } else {
        VolumeVersion::V1
    }
}

//! Mounts: read-only files for containers and builds. The server keeps contents by their hash and is sent what it lacks.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    Client, Error,
    files::{Upload, blocking},
    retry::Policy,
    wire::{self, mount_put_file_request::DataOneof},
};

/// Hashes asked for at once.
const BATCH: usize = 64;
/// Small files on their way at the same time; of large ones, which are in memory whole, one.
const UPLOADS_AT_ONCE: usize = 16;
// modal: LARGE_FILE_LIMIT, MOUNT_PUT_FILE_CLIENT_TIMEOUT, VOLUME_PUT_FILE_CLIENT_TIMEOUT
const LARGE_FILE: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(600);
const VOLUME_PATIENCE: Duration = Duration::from_secs(3600);

/// How long a mount lives.
#[derive(Debug, Clone, Copy)]
pub enum MountOwner<'a> {
    /// As long as the app needs it.
    App(&'a str),
    /// As long as this client works with it; empty: the default environment.
    Environment(&'a str),
}

/// A file with the hash that the server knows its content by.
#[derive(Debug, Clone)]
pub(crate) struct Hashed {
    pub(crate) upload: Upload,
    pub(crate) sha256_hex: String,
    pub(crate) size: u64,
}

impl Hashed {
    pub(crate) fn mount_file(&self) -> wire::MountFile {
        wire::MountFile {
            filename: self.upload.remote_path.clone(),
            sha256_hex: self.sha256_hex.clone(),
            size: None,
            mode: Some(self.upload.mode),
        }
    }
}

impl Client {
    /// Brings files up and answers the id of a mount of them. Contents that the server has are not sent again.
    pub async fn mount_create(
        &self,
        files: Vec<Upload>,
        owner: MountOwner<'_>,
    ) -> Result<String, Error> {
        let hashed = hash_all(files).await?;
        let mut earliest: Option<prost_types::Timestamp> = None;
        let mut missing = HashSet::new();
        for batch in hashed.chunks(BATCH) {
            let request = wire::MountBatchedCheckExistenceRequest {
                sha256_hex_hashes: batch.iter().map(|file| file.sha256_hex.clone()).collect(),
            };
            let answer = self
                .caller
                .call(
                    Policy::FILES,
                    Uuid::new_v4(),
                    request,
                    async |mut stub, request| stub.mount_batched_check_existence(request).await,
                )
                .await?;
            missing.extend(answer.missing_sha256_hex_hashes);
            let moment = |one: &prost_types::Timestamp| (one.seconds, one.nanos);
            if let Some(at) = answer.checked_at
                && earliest
                    .as_ref()
                    .is_none_or(|known| moment(&at) < moment(known))
            {
                earliest = Some(at);
            }
        }
        let mut sent = HashSet::new();
        let lacking = hashed
            .iter()
            .filter(|file| missing.contains(&file.sha256_hex) && sent.insert(&file.sha256_hex));
        self.send_contents(lacking.cloned().collect(), PATIENCE)
            .await?;
        let (kind, app_id, environment) = match owner {
            MountOwner::App(app_id) => (wire::ObjectCreationType::AnonymousOwnedByApp, app_id, ""),
            MountOwner::Environment(name) => (wire::ObjectCreationType::Ephemeral, "", name),
        };
        let request = wire::MountGetOrCreateRequest {
            object_creation_type: kind.into(),
            files: hashed.iter().map(Hashed::mount_file).collect(),
            app_id: app_id.to_owned(),
            environment_name: environment.to_owned(),
            earliest_checked_at: earliest,
            ..Default::default()
        };
        self.mount(request).await
    }

    /// The id of the mount with Modal's own runtime, which each function's container needs: that of the version we claim.
    ///
    /// # Errors
    /// [`Error::Missing`] when the server no longer has that version.
    pub async fn mount_of_client(&self) -> Result<String, Error> {
        let name = format!("modal-client-mount-{}", self.client_version);
        let request = wire::MountGetOrCreateRequest {
            deployment_name: name.clone(),
            namespace: wire::DeploymentNamespace::Global.into(),
            ..Default::default()
        };
        self.mount(request).await.map_err(|error| {
            error.looking_for(
                "mount",
                &name,
                "",
                "the server keeps no runtime of this client version: set MODALFLOW_MODAL_CLIENT_VERSION to a newer one",
            )
        })
    }

    async fn mount(&self, request: wire::MountGetOrCreateRequest) -> Result<String, Error> {
        let answer = self
            .caller
            .call(
                Policy::FILES,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.mount_get_or_create(request).await,
            )
            .await?;
        Ok(answer.mount_id)
    }

    /// Asks for each content whether the server has it, and sends it if not. For volumes of the first version.
    pub(crate) async fn ensure_contents(&self, files: &[Hashed]) -> Result<(), Error> {
        let mut lacking = Vec::new();
        for file in files {
            if !self.put_content(&file.sha256_hex, None).await? {
                lacking.push(file.clone());
            }
        }
        self.send_contents(lacking, VOLUME_PATIENCE).await
    }

    async fn send_contents(&self, files: Vec<Hashed>, patience: Duration) -> Result<(), Error> {
        let large = Semaphore::new(1);
        let large = &large;
        let sends = files
            .into_iter()
            .map(|file| async move { self.send_content(file, large, patience).await });
        futures::stream::iter(sends)
            .buffer_unordered(UPLOADS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn send_content(
        &self,
        file: Hashed,
        large: &Semaphore,
        patience: Duration,
    ) -> Result<(), Error> {
        let through_blob = file.size >= LARGE_FILE;
        let _permit = if through_blob {
            large.acquire().await.ok()
        } else {
            None
        };
        let upload = file.upload.clone();
        let size = usize::try_from(file.size).unwrap_or(usize::MAX);
        let bytes = blocking(move || upload.read(0, size)).await?;
        let data = if through_blob {
            DataOneof::DataBlobId(self.blob_put(bytes).await?)
        } else {
            DataOneof::Data(bytes)
        };
        let started = Instant::now();
        // The server takes a moment to move a blob to its place.
        while started.elapsed() < patience {
            if self
                .put_content(&file.sha256_hex, Some(data.clone()))
                .await?
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Error::Transfer {
            what: file.upload.remote_path,
            reason: format!("the server did not take it within {patience:?}"),
        })
    }

    async fn put_content(&self, sha256_hex: &str, data: Option<DataOneof>) -> Result<bool, Error> {
        let request = wire::MountPutFileRequest {
            sha256_hex: sha256_hex.to_owned(),
            data_oneof: data,
        };
        let answer = self
            .caller
            .call(
                Policy::FILES,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.mount_put_file(request).await,
            )
            .await?;
        Ok(answer.exists)
    }
}

/// Hashes files, several at a time, in the order they came.
pub(crate) async fn hash_all(files: Vec<Upload>) -> Result<Vec<Hashed>, Error> {
    let doubled = Arc::new(Mutex::new(HashSet::new()));
    let hashing = files.into_iter().map(|upload| {
        let doubled = Arc::clone(&doubled);
        blocking(move || {
            let fresh = doubled
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(upload.remote_path.clone());
            if !fresh {
                return Err(Error::Invalid(format!(
                    "two files for {}",
                    upload.remote_path
                )));
            }
            Ok(Hashed {
                sha256_hex: hex::encode(upload.sha256()?),
                size: upload.size()?,
                upload,
            })
        })
    });
    futures::stream::iter(hashing.collect::<Vec<_>>())
        .buffered(UPLOADS_AT_ONCE)
        .try_collect()
        .await
}

//! `object-store` over the directories that were granted.

use wasmtime::component::Resource;

use super::{HostError, blocking};
use crate::bindings::host::{bytes, object_store, types};
use crate::call::CallState;
use crate::directory::{Directory, Meta, StoreError};
use crate::path_part;

/// The most names of one page.
const MOST_ENTRIES: u32 = 1_000;

/// A store that a guest opened.
pub struct Store(Directory);

impl From<StoreError> for HostError {
    fn from(error: StoreError) -> Self {
        HostError::Guest(match error {
            StoreError::NotFound(text) => types::Error::NotFound(text),
            StoreError::Denied(text) => types::Error::Denied(text),
            StoreError::Invalid(text) => types::Error::Invalid(text),
            StoreError::Conflict(text) => types::Error::Conflict(text),
            StoreError::Unavailable(text) => types::Error::Unavailable(text),
            StoreError::Failed(text) => types::Error::Failed(text),
        })
    }
}

impl From<Meta> for object_store::Meta {
    fn from(meta: Meta) -> Self {
        object_store::Meta {
            size: meta.size,
            modified: meta.modified,
        }
    }
}

impl CallState {
    fn directory(&mut self, store: &Resource<Store>) -> Result<Directory, HostError> {
        self.count_call()?;
        Ok(self.table.get(store)?.0.clone())
    }
}

impl object_store::Host for CallState {
    async fn part(&mut self, id: String) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(path_part(&id))
    }
}

impl object_store::HostStore for CallState {
    async fn open(&mut self, name: String) -> Result<Resource<Store>, HostError> {
        self.count_call()?;
        let Some(directory) = self.context.stores.get(&name) else {
            let text = format!("no store {name:?} was wished for and granted");
            return Err(types::Error::Denied(text).into());
        };
        let store = Store(directory.clone());
        Ok(self.table.push(store)?)
    }

    async fn head(
        &mut self,
        store: Resource<Store>,
        path: String,
    ) -> Result<object_store::Meta, HostError> {
        let directory = self.directory(&store)?;
        blocking(move || Ok(directory.head(&path)?.into())).await
    }

    async fn get(
        &mut self,
        store: Resource<Store>,
        path: String,
        range: Option<object_store::ByteRange>,
    ) -> Result<(object_store::Meta, bytes::Payload), HostError> {
        let directory = self.directory(&store)?;
        let (start, len) = range.map_or((0, None), |range| (range.start, range.len));
        let (meta, payload) = blocking(move || Ok(directory.get(&path, start, len)?)).await?;
        Ok((meta.into(), self.lower(payload).await?))
    }

    async fn put(
        &mut self,
        store: Resource<Store>,
        path: String,
        data: bytes::Payload,
    ) -> Result<object_store::Meta, HostError> {
        let directory = self.directory(&store)?;
        let data = self.lift(data)?;
        blocking(move || Ok(directory.put(&path, &data)?.into())).await
    }

    async fn append(
        &mut self,
        store: Resource<Store>,
        path: String,
        offset: u64,
        data: bytes::Payload,
    ) -> Result<u64, HostError> {
        let directory = self.directory(&store)?;
        let data = self.lift(data)?;
        blocking(move || Ok(directory.append(&path, offset, &data)?)).await
    }

    async fn delete(&mut self, store: Resource<Store>, path: String) -> Result<bool, HostError> {
        let directory = self.directory(&store)?;
        blocking(move || Ok(directory.delete(&path)?)).await
    }

    async fn delete_all(
        &mut self,
        store: Resource<Store>,
        prefix: String,
    ) -> Result<u64, HostError> {
        let directory = self.directory(&store)?;
        blocking(move || Ok(directory.delete_all(&prefix)?)).await
    }

    async fn list(
        &mut self,
        store: Resource<Store>,
        prefix: String,
        after: Option<String>,
        max: u32,
    ) -> Result<object_store::Page, HostError> {
        let directory = self.directory(&store)?;
        let max = max.clamp(1, MOST_ENTRIES) as usize;
        let (found, more) =
            blocking(move || Ok(directory.list(&prefix, after.as_deref(), max)?)).await?;
        let next = found.last().filter(|_| more).map(|last| last.name.clone());
        let entries = found
            .into_iter()
            .map(|entry| object_store::Entry {
                name: entry.name,
                size: entry.size,
            })
            .collect();
        Ok(object_store::Page { entries, next })
    }

    async fn drop(&mut self, store: Resource<Store>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

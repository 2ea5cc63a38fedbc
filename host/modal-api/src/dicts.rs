//! Dicts: values by key that programs share. Keys and values are bytes, compared one by one; [`crate::pickle`] makes those of Python.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;

use crate::{Client, Creation, Error, listing::Page, names, outcome::instant, wire};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub id: String,
    pub name: String,
    pub created_at: Option<DateTime<Utc>>,
}

impl Client {
    /// Looks a dict up or makes it, and answers its id.
    pub async fn dict_get_or_create(
        &self,
        name: &str,
        environment: &str,
        creation: Creation,
    ) -> Result<String, Error> {
        names::object("dict", name)?;
        let request = wire::DictGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: environment.to_owned(),
            object_creation_type: creation.wire().into(),
            data: Vec::new(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.dict_get_or_create(request).await
            })
            .await
            .map_err(|error| {
                error.looking_for(
                    "dict",
                    name,
                    environment,
                    "`modal dict list` shows the dicts, `modal dict create` makes one",
                )
            })?;
        Ok(answer.dict_id)
    }

    /// Writes entries; those with the same keys are replaced.
    pub async fn dict_put(&self, dict_id: &str, entries: Vec<(Bytes, Bytes)>) -> Result<(), Error> {
        self.dict_update(dict_id, entries, false).await.map(|_| ())
    }

    /// Writes an entry unless its key is there. True if it was written: of several callers one hears that.
    pub async fn dict_put_if_absent(
        &self,
        dict_id: &str,
        key: Bytes,
        value: Bytes,
    ) -> Result<bool, Error> {
        self.dict_update(dict_id, vec![(key, value)], true).await
    }

    async fn dict_update(
        &self,
        dict_id: &str,
        entries: Vec<(Bytes, Bytes)>,
        if_not_exists: bool,
    ) -> Result<bool, Error> {
        let request = wire::DictUpdateRequest {
            dict_id: dict_id.to_owned(),
            updates: entries
                .into_iter()
                .map(|(key, value)| wire::DictEntry { key, value })
                .collect(),
            if_not_exists,
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.dict_update(request).await
            })
            .await?;
        Ok(answer.created)
    }

    pub async fn dict_get(&self, dict_id: &str, key: Bytes) -> Result<Option<Bytes>, Error> {
        let request = wire::DictGetRequest {
            dict_id: dict_id.to_owned(),
            key,
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.dict_get(request).await
            })
            .await?;
        Ok(answer.value.filter(|_| answer.found))
    }

    /// Takes an entry out.
    pub async fn dict_pop(&self, dict_id: &str, key: Bytes) -> Result<Option<Bytes>, Error> {
        let request = wire::DictPopRequest {
            dict_id: dict_id.to_owned(),
            key,
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.dict_pop(request).await
            })
            .await?;
        Ok(answer.value.filter(|_| answer.found))
    }

    pub async fn dict_contains(&self, dict_id: &str, key: Bytes) -> Result<bool, Error> {
        let request = wire::DictContainsRequest {
            dict_id: dict_id.to_owned(),
            key,
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.dict_contains(request).await
            })
            .await?;
        Ok(answer.found)
    }

    /// All entries.
    pub async fn dict_entries(&self, dict_id: &str) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let request = wire::DictContentsRequest {
            dict_id: dict_id.to_owned(),
            keys: true,
            values: true,
        };
        let mut stream = self
            .caller
            .stream(request, async |mut stub, request| {
                stub.dict_contents(request).await
            })
            .await?;
        let mut entries = Vec::new();
        while let Some(entry) = stream.next().await {
            let entry = entry.map_err(|status| self.caller.failure(status))?;
            entries.push((entry.key, entry.value));
        }
        Ok(entries)
    }

    /// How many entries there are.
    pub async fn dict_len(&self, dict_id: &str) -> Result<i32, Error> {
        let request = wire::DictLenRequest {
            dict_id: dict_id.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.dict_len(request).await
            })
            .await?;
        Ok(answer.len)
    }

    /// Takes all entries out.
    pub async fn dict_clear(&self, dict_id: &str) -> Result<(), Error> {
        let request = wire::DictClearRequest {
            dict_id: dict_id.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.dict_clear(request).await
            })
            .await
    }

    pub async fn dict_delete(&self, dict_id: &str) -> Result<(), Error> {
        let request = wire::DictDeleteRequest {
            dict_id: dict_id.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.dict_delete(request).await
            })
            .await
    }

    pub async fn dict_list(&self, environment: &str) -> Result<Vec<ListedObject>, Error> {
        let mut page = Page::default();
        let mut all = Vec::new();
        while let Some(pagination) = page.next() {
            let request = wire::DictListRequest {
                environment_name: environment.to_owned(),
                pagination: Some(pagination),
            };
            let answer = self
                .caller
                .short(request, async |mut stub, request| {
                    stub.dict_list(request).await
                })
                .await?;
            page.seen(answer.dicts.iter().map(|dict| dict.created_at));
            all.extend(answer.dicts.into_iter().map(|dict| ListedObject {
                id: dict.dict_id,
                name: dict.name,
                created_at: instant(dict.created_at),
            }));
        }
        Ok(all)
    }
}

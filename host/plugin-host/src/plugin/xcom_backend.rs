//! [`XcomBackend`] over a guest.

use std::sync::Arc;

use async_trait::async_trait;

use super::Loaded;
use crate::bindings::guest::xcom_backend as wit;
use crate::call::{Call, cut};
use crate::xcom::RESERVED;
use crate::{Error, Kind, Payload, Reference, Scope, Stored, XcomBackend, XcomCoordinate};

const MOST_PREVIEW: usize = 1_024;
const MOST_URI: usize = 4_096;
const MOST_ATTRIBUTES: usize = 16;
const MOST_ATTRIBUTE: usize = 1_024;
/// References handed to one `purge`; more are handed over in further calls.
const REFERENCES_AT_ONCE: usize = 1_000;

pub(super) struct Guest(pub(super) Arc<Loaded>);

impl Guest {
    async fn begin(
        &self,
        function: &'static str,
        value_bytes: u64,
    ) -> Result<(Call, wit::Guest), Error> {
        let mut call = self.0.begin(function, value_bytes).await?;
        let Some(exports) = &self.0.exports.xcom_backend else {
            return Err(self.0.wrong_kind(Kind::XcomBackend));
        };
        let guest = exports.load(&mut call.store, &call.instance);
        let guest = call.conclude(guest)?;
        Ok((call, guest))
    }
}

#[async_trait]
impl XcomBackend for Guest {
    async fn put(&self, at: &XcomCoordinate, value: Payload) -> Result<Stored, Error> {
        let (mut call, guest) = self.begin("xcom-backend.put", value.len()).await?;
        let value = call.hand_over(value).await?;
        let at = at.into();
        let answer = guest.call_put(&mut call.store, &at, &value);
        let answer = call.limit.watch(answer).await;
        match call.conclude_result(answer)? {
            wit::Stored::InDatabase(json) => serde_json::from_str(&json)
                .map(Stored::InDatabase)
                .map_err(|error| {
                    call.misbehaved(format!("the value for the database is not JSON: {error}"))
                }),
            wit::Stored::Elsewhere(reference) => Ok(Stored::Elsewhere(checked(&call, reference)?)),
        }
    }

    async fn get(&self, at: &XcomCoordinate, stored: &Stored) -> Result<Payload, Error> {
        let size = match stored {
            Stored::InDatabase(_) => 0,
            Stored::Elsewhere(reference) => reference.size.unwrap_or(0),
        };
        let (mut call, guest) = self.begin("xcom-backend.get", size).await?;
        let stored = match stored {
            Stored::InDatabase(value) => wit::Stored::InDatabase(value.to_string()),
            Stored::Elsewhere(reference) => wit::Stored::Elsewhere(reference.into()),
        };
        let at = at.into();
        let answer = guest.call_get(&mut call.store, &at, &stored);
        let answer = call.limit.watch(answer).await;
        let payload = call.conclude_result(answer)?;
        call.take_back(payload)
    }

    async fn purge(&self, scope: &Scope, known: &[Reference]) -> Result<u64, Error> {
        let mut removed: u64 = 0;
        let mut batches = known.chunks(REFERENCES_AT_ONCE);
        let mut batch = batches.next().unwrap_or_default();
        loop {
            let known: Vec<wit::Reference> = batch.iter().map(Into::into).collect();
            let (mut call, guest) = self.begin("xcom-backend.purge", 0).await?;
            let scope = scope.into();
            let answer = guest.call_purge(&mut call.store, &scope, &known);
            let answer = call.limit.watch(answer).await;
            removed = removed.saturating_add(call.conclude_result(answer)?);
            match batches.next() {
                Some(next) => batch = next,
                None => return Ok(removed),
            }
        }
    }
}

fn checked(call: &Call, reference: wit::Reference) -> Result<Reference, Error> {
    if reference.uri.is_empty() || reference.uri.len() > MOST_URI {
        return Err(call.misbehaved(format!("a URI of {} bytes", reference.uri.len())));
    }
    if reference.attributes.len() > MOST_ATTRIBUTES {
        return Err(call.misbehaved(format!("{} attributes", reference.attributes.len())));
    }
    for (name, value) in &reference.attributes {
        if name.is_empty() || name.len() > 64 || value.len() > MOST_ATTRIBUTE {
            return Err(call.misbehaved("an attribute with an empty or too long name or value"));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(call.misbehaved(format!("an attribute with the reserved name {name:?}")));
        }
    }
    Ok(Reference {
        uri: reference.uri,
        size: reference.size,
        preview: reference.preview.map(|preview| cut(preview, MOST_PREVIEW)),
        attributes: reference.attributes.into_iter().collect(),
    })
}

impl From<&XcomCoordinate> for wit::Coordinate {
    fn from(at: &XcomCoordinate) -> Self {
        wit::Coordinate {
            task: (&at.task).into(),
            key: at.key.clone(),
        }
    }
}

impl From<&Reference> for wit::Reference {
    fn from(reference: &Reference) -> Self {
        wit::Reference {
            uri: reference.uri.clone(),
            size: reference.size,
            preview: reference.preview.clone(),
            attributes: reference.attributes.clone().into_iter().collect(),
        }
    }
}

impl From<&Scope> for wit::Scope {
    fn from(scope: &Scope) -> Self {
        match scope {
            Scope::One(at) => wit::Scope::One(at.into()),
            Scope::Task(task) => wit::Scope::Task(task.into()),
            Scope::Run { dag_id, run_id } => wit::Scope::Run((dag_id.clone(), run_id.clone())),
            Scope::Dag { dag_id } => wit::Scope::Dag(dag_id.clone()),
        }
    }
}

//! An XCom backend in memory: values of up to 1 KiB stay in the row, larger ones are kept here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use plugin_host::{Error, Payload, Reference, Scope, Stored, XcomBackend, XcomCoordinate};

const IN_ROW: u64 = 1 << 10;

#[derive(Default)]
pub(crate) struct Backend {
    kept: Mutex<BTreeMap<String, Bytes>>,
}

impl Backend {
    pub(crate) fn places(&self) -> Vec<String> {
        self.kept.lock().unwrap().keys().cloned().collect()
    }
}

fn place(at: &XcomCoordinate) -> String {
    let task = &at.task;
    format!(
        "{}/{}/{}/{}/{}",
        task.dag_id, task.run_id, task.task_id, task.map_index, at.key
    )
}

#[async_trait]
impl XcomBackend for Backend {
    async fn put(&self, at: &XcomCoordinate, value: Payload) -> Result<Stored, Error> {
        if value.len() <= IN_ROW {
            let bytes = value.into_bytes(IN_ROW).await?;
            return Ok(Stored::InDatabase(serde_json::from_slice(&bytes).unwrap()));
        }
        let size = value.len();
        let bytes = value.into_bytes(u64::MAX).await?;
        let uri = place(at);
        self.kept.lock().unwrap().insert(uri.clone(), bytes);
        Ok(Stored::Elsewhere(Reference {
            uri,
            size: Some(size),
            ..Reference::default()
        }))
    }

    async fn get(&self, _: &XcomCoordinate, stored: &Stored) -> Result<Payload, Error> {
        match stored {
            Stored::InDatabase(value) => Ok(Payload::from(value.to_string())),
            Stored::Elsewhere(reference) => match self.kept.lock().unwrap().get(&reference.uri) {
                Some(bytes) => Ok(Payload::from(bytes.clone())),
                None => Err(Error::NotFound {
                    plugin: "memory".to_owned(),
                    message: reference.uri.clone(),
                }),
            },
        }
    }

    async fn purge(&self, scope: &Scope, _: &[Reference]) -> Result<u64, Error> {
        let Scope::One(at) = scope else { return Ok(0) };
        Ok(u64::from(
            self.kept.lock().unwrap().remove(&place(at)).is_some(),
        ))
    }
}

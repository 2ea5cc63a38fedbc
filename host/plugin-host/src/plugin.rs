//! A loaded plugin, and the traits over its exports: generated types on one side, the house's nouns on the other.
//!
//! What a guest answers is checked as if it came from the network.

mod dag_validator;
mod log_handler;
mod xcom_backend;

use std::sync::Arc;

use wasmtime::component::InstancePre;

use crate::bindings::host::types;
use crate::call::{Call, CallState, Context};
use crate::engine::EngineRoom;
use crate::host::{Exports, Kind, Manifest};
use crate::{DagValidator, Error, LogHandler, TaskKey, XcomBackend};

/// A plugin that described itself, whose settings it accepted, and that has its grants. Cheap to clone.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) exports: Exports,
    pub(crate) context: Arc<Context>,
    pub(crate) room: Arc<EngineRoom>,
}

impl Loaded {
    /// A fresh instance for one call; `value_bytes` are on their way through it.
    pub(crate) async fn begin(
        &self,
        function: &'static str,
        value_bytes: u64,
    ) -> Result<Call, Error> {
        Call::begin(&self.room, &self.pre, &self.context, function, value_bytes).await
    }

    fn wrong_kind(&self, wanted: Kind) -> Error {
        let offered: Vec<String> = self
            .manifest
            .kinds
            .iter()
            .map(ToString::to_string)
            .collect();
        Error::WrongKind {
            plugin: self.manifest.name.clone(),
            wanted: match wanted {
                Kind::XcomBackend => "xcom-backend",
                Kind::LogHandler => "log-handler",
                Kind::DagValidator => "dag-validator",
            },
            offered: offered.join(", "),
        }
    }
}

impl Plugin {
    pub(crate) fn new(loaded: Loaded) -> Plugin {
        Plugin(Arc::new(loaded))
    }

    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    pub fn xcom_backend(&self) -> Result<Arc<dyn XcomBackend>, Error> {
        if self.0.exports.xcom_backend.is_none() {
            return Err(self.0.wrong_kind(Kind::XcomBackend));
        }
        Ok(Arc::new(xcom_backend::Guest(self.0.clone())))
    }

    pub fn log_handler(&self) -> Result<Arc<dyn LogHandler>, Error> {
        if self.0.exports.log_handler.is_none() {
            return Err(self.0.wrong_kind(Kind::LogHandler));
        }
        Ok(Arc::new(log_handler::Guest(self.0.clone())))
    }

    pub fn dag_validator(&self) -> Result<Arc<dyn DagValidator>, Error> {
        if self.0.exports.dag_validator.is_none() {
            return Err(self.0.wrong_kind(Kind::DagValidator));
        }
        Ok(Arc::new(dag_validator::Guest(self.0.clone())))
    }
}

impl From<&TaskKey> for types::TaskKey {
    fn from(task: &TaskKey) -> Self {
        types::TaskKey {
            dag_id: task.dag_id.clone(),
            run_id: task.run_id.clone(),
            task_id: task.task_id.clone(),
            map_index: task.map_index,
            try_number: task.try_number,
        }
    }
}

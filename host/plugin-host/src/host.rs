//! The engine and the plugins it loaded.

use std::sync::Arc;

use crate::{DagValidator, Error, Grants, HostConfig, LogHandler, Source, XcomBackend};

/// What a plugin says of itself, and what the host saw in its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    /// SHA-256 of the component.
    pub sha256: String,
    pub kinds: Vec<Kind>,
}

/// What a plugin can be; read off the interfaces it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    XcomBackend,
    LogHandler,
    DagValidator,
}

pub struct PluginHost {
    config: HostConfig,
}

impl PluginHost {
    pub fn new(config: HostConfig) -> Result<Self, Error> {
        Ok(PluginHost { config })
    }

    pub async fn load(
        &self,
        source: Source,
        _settings: serde_json::Value,
        _grants: Grants,
    ) -> Result<Plugin, Error> {
        Err(Error::NotAPlugin {
            plugin: format!("{source:?}"),
            reason: format!(
                "the engine is not built in yet ({:?})",
                self.config.cache_dir
            ),
        })
    }
}

pub struct Plugin {
    manifest: Manifest,
}

impl Plugin {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn xcom_backend(&self) -> Result<Arc<dyn XcomBackend>, Error> {
        Err(self.wrong_kind("xcom backend"))
    }

    pub fn log_handler(&self) -> Result<Arc<dyn LogHandler>, Error> {
        Err(self.wrong_kind("log handler"))
    }

    pub fn dag_validator(&self) -> Result<Arc<dyn DagValidator>, Error> {
        Err(self.wrong_kind("dag validator"))
    }

    fn wrong_kind(&self, wanted: &'static str) -> Error {
        Error::WrongKind {
            plugin: self.manifest.name.clone(),
            wanted,
            offered: format!("{:?}", self.manifest.kinds),
        }
    }
}

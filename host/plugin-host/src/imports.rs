//! The host functions that guests call. Each one is counted, each one answers only from the call's own context.

mod dags;
mod objects;

use std::time::{Instant, SystemTime};

use wasmtime::component::Resource;

use crate::bindings::host::{bytes, clock, logging, random, settings, types};
use crate::call::{CallState, MOST_TEXT, cut};
use crate::directory::microseconds;
use crate::payload::Spooler;
use crate::{Error, INLINE_BYTES, Payload};

pub use self::dags::{DagResource, TaskResource};
pub use self::objects::Store;

/// What a host function may answer besides its value: an error for the guest, or the end of the call.
pub enum HostError {
    Guest(types::Error),
    Trap(wasmtime::Error),
}

impl From<types::Error> for HostError {
    fn from(error: types::Error) -> Self {
        HostError::Guest(error)
    }
}

impl From<wasmtime::Error> for HostError {
    fn from(error: wasmtime::Error) -> Self {
        HostError::Trap(error)
    }
}

impl From<wasmtime::component::ResourceTableError> for HostError {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        HostError::Trap(error.into())
    }
}

impl From<std::io::Error> for HostError {
    fn from(error: std::io::Error) -> Self {
        HostError::Guest(types::Error::Failed(error.to_string()))
    }
}

/// Bytes that a guest holds by handle, and how far it has read them.
pub struct Body {
    pub(crate) payload: Payload,
    position: u64,
}

impl Body {
    pub(crate) fn new(payload: Payload) -> Body {
        Body {
            payload,
            position: 0,
        }
    }
}

pub struct Writer(Spooler);

impl CallState {
    /// A value on its way into a guest: small ones are copied, large ones are a handle.
    pub(crate) async fn lower(&mut self, payload: Payload) -> Result<bytes::Payload, HostError> {
        if payload.len() > INLINE_BYTES as u64 {
            return Ok(bytes::Payload::Handle(self.table.push(Body::new(payload))?));
        }
        let len = payload.len();
        let bytes = payload.into_bytes(len).await.map_err(failed)?;
        self.count_bytes(bytes.len())?;
        Ok(bytes::Payload::Inline(bytes.into()))
    }

    /// A value that came out of a guest.
    pub(crate) fn lift(&mut self, payload: bytes::Payload) -> wasmtime::Result<Payload> {
        match payload {
            bytes::Payload::Inline(bytes) => {
                self.count_bytes(bytes.len())?;
                Ok(Payload::from(bytes))
            }
            bytes::Payload::Handle(body) => Ok(self.table.delete(body)?.payload),
        }
    }
}

/// Runs what blocks away from the guest's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| HostError::Trap(error.into()))?
}

fn failed(error: Error) -> HostError {
    let source = std::error::Error::source(&error);
    let text = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    HostError::Guest(types::Error::Failed(text))
}

impl types::Host for CallState {
    fn convert_error(&mut self, error: HostError) -> wasmtime::Result<types::Error> {
        match error {
            HostError::Guest(error) => Ok(error),
            HostError::Trap(error) => Err(error),
        }
    }
}

impl bytes::Host for CallState {}

impl bytes::HostBody for CallState {
    async fn of(&mut self, bytes: Vec<u8>) -> wasmtime::Result<Resource<Body>> {
        self.count_call()?;
        self.count_bytes(bytes.len())?;
        Ok(self.table.push(Body::new(Payload::from(bytes)))?)
    }

    async fn size(&mut self, body: Resource<Body>) -> wasmtime::Result<u64> {
        self.count_call()?;
        Ok(self.table.get(&body)?.payload.len())
    }

    async fn read(&mut self, body: Resource<Body>, max: u32) -> Result<Vec<u8>, HostError> {
        self.count_call()?;
        let max = (max as usize).min(self.context.grants.memory_bytes as usize);
        let Body { payload, position } = self.table.get(&body)?;
        let (payload, position) = (payload.clone(), *position);
        let bytes = match payload {
            Payload::Inline(_) => payload.read_at(position, max)?,
            Payload::Spooled(_) => blocking(move || Ok(payload.read_at(position, max)?)).await?,
        };
        self.count_bytes(bytes.len())?;
        self.table.get_mut(&body)?.position += bytes.len() as u64;
        Ok(bytes.into())
    }

    async fn sha256(&mut self, body: Resource<Body>) -> Result<String, HostError> {
        self.count_call()?;
        let payload = self.table.get(&body)?.payload.clone();
        match payload {
            Payload::Inline(_) => Ok(payload.sha256()?),
            Payload::Spooled(_) => blocking(move || Ok(payload.sha256()?)).await,
        }
    }

    async fn drop(&mut self, body: Resource<Body>) -> wasmtime::Result<()> {
        self.table.delete(body)?;
        Ok(())
    }
}

impl bytes::HostWriter for CallState {
    async fn new(&mut self) -> wasmtime::Result<Resource<Writer>> {
        self.count_call()?;
        let spooler = Spooler::new(&self.context.spool_dir);
        Ok(self.table.push(Writer(spooler))?)
    }

    async fn write(&mut self, writer: Resource<Writer>, chunk: Vec<u8>) -> Result<(), HostError> {
        self.count_call()?;
        self.count_bytes(chunk.len())?;
        Ok(self.table.get_mut(&writer)?.0.write(&chunk)?)
    }

    async fn finish(&mut self, writer: Resource<Writer>) -> Result<Resource<Body>, HostError> {
        self.count_call()?;
        let payload = self.table.delete(writer)?.0.finish();
        Ok(self.table.push(Body::new(payload))?)
    }

    async fn drop(&mut self, writer: Resource<Writer>) -> wasmtime::Result<()> {
        self.table.delete(writer)?;
        Ok(())
    }
}

impl settings::Host for CallState {
    fn all(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.settings.to_string())
    }

    fn get(&mut self, pointer: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self
            .context
            .settings
            .pointer(&pointer)
            .map(ToString::to_string))
    }

    fn current_limits(&mut self) -> wasmtime::Result<settings::Limits> {
        self.count_call()?;
        let grants = &self.context.grants;
        Ok(settings::Limits {
            inline_bytes: INLINE_BYTES as u32,
            memory_bytes: grants.memory_bytes,
            deadline_ms: u32::try_from(grants.deadline.as_millis()).unwrap_or(u32::MAX),
        })
    }
}

impl logging::Host for CallState {
    fn log(
        &mut self,
        level: logging::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        // A panic while it describes itself shall be seen too.
        if !self.context.describing {
            self.count_call()?;
        }
        let plugin = self.context.plugin.as_str();
        let message = cut(message, MOST_TEXT);
        let fields: Vec<String> = fields
            .into_iter()
            .take(16)
            .map(|(name, value)| format!("{}={:?}", cut(name, 64), cut(value, 1024)))
            .collect();
        let fields = fields.join(" ");
        match level {
            logging::Level::Trace => tracing::trace!(plugin, fields, "{message}"),
            logging::Level::Debug => tracing::debug!(plugin, fields, "{message}"),
            logging::Level::Info => tracing::info!(plugin, fields, "{message}"),
            logging::Level::Warn => tracing::warn!(plugin, fields, "{message}"),
            logging::Level::Error => {
                tracing::error!(plugin, fields, "{message}");
                self.last_error = Some(message);
            }
        }
        Ok(())
    }
}

impl clock::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<i64> {
        self.count_call()?;
        Ok(microseconds(SystemTime::now()))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        self.count_call()?;
        let passed = Instant::now().saturating_duration_since(self.began());
        Ok(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl random::Host for CallState {
    fn bytes(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        self.count_call()?;
        let len = len.min(64 << 10) as usize;
        self.count_bytes(len)?;
        let mut bytes = vec![0; len];
        rand::fill(&mut bytes[..]);
        Ok(bytes)
    }
}

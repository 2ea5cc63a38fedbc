//! WebAssembly plugins: one wasmtime engine, grants, limits, plain Rust traits outside.
//!
//! The rest of the house sees nouns and three traits: [`XcomBackend`], [`LogHandler`], [`DagValidator`]. Nothing that
//! wasmtime or its code generator made leaves this crate, and this crate knows neither SQL nor Modal.

mod bindings;
mod builtin;
mod cache;
mod call;
pub mod conformance;
mod dag;
mod directory;
mod engine;
mod error;
mod grants;
mod host;
#[expect(
    unreachable_pub,
    reason = "generated code re-exports the types behind resources"
)]
mod imports;
mod log;
mod payload;
mod plugin;
mod task;
mod xcom;

pub use dag::{DagValidator, DagView, Finding, Operation, Rule, Severity, ValidationRequest};
pub use error::{Error, Problem};
pub use grants::{Grants, HostConfig, Source, StoreGrant};
pub use host::{Kind, Manifest, PluginHost, Wish};
pub use log::{LogHandler, LogOutcome, LogPage, LogRecord};
pub use payload::{INLINE_BYTES, Payload, PayloadReader, Spool};
pub use plugin::Plugin;
pub use task::{Scope, TaskKey, XcomCoordinate, path_part};
pub use xcom::{Reference, Stored, XCOM_MARKER, XcomBackend};

//! Modal on one machine behind its own gRPC API; calls run as local processes.
//!
//! Callers speak to [`Config::listen`]; each container is a local process with a socket of its own. Everything that was answered
//! is in a journal first, so that killing this process loses nothing. The room knows functions, calls and containers, not what they
//! are for; it has no database.
//!
//! Reading order: `state` (what is known), `record` and `journal` (how it lasts), `core` (the lock around it), `callers`, `containers`,
//! `dispatch`, `fates`, `housekeeping` (how it changes), `lifecycle` and `process` (the world), the two services (the wire).

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test ends at the first surprise")
)]

mod caller_service;
mod callers;
mod clock;
mod config;
mod container_service;
mod containers;
mod core;
mod dispatch;
mod emulator;
mod error;
mod fates;
mod fetch;
mod housekeeping;
mod ids;
mod journal;
mod lifecycle;
mod log_file;
mod process;
mod record;
mod snapshot;
mod state;
mod token;

pub use config::{Config, FunctionSpec, Listen, Stop};
pub use emulator::Emulator;
pub use error::Error;

/// `sockaddr_un` holds 108 bytes with the closing NUL.
pub const MAX_SOCKET_PATH: usize = 107;

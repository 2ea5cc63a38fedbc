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

mod activation;
mod app_life;
mod app_parts;
mod apps;
mod ask;
mod blobs;
mod bound;
mod caller_service;
mod callers;
mod classes;
mod clock;
mod config;
mod container_service;
mod containers;
mod contents;
mod core;
mod definition_checks;
mod definitions;
mod deployed;
mod dicts;
mod dispatch;
mod dockerfile;
mod emulator;
mod error;
mod fates;
mod fetch;
mod front;
mod ground;
mod handles;
mod housekeeping;
mod http_files;
mod ids;
mod image_build;
mod images;
mod journal;
mod lifecycle;
mod log_file;
mod log_service;
mod logs;
mod mounts;
mod objects;
mod partitions;
mod process;
mod publish;
mod python;
mod queues;
mod record;
mod recorded;
mod rows;
mod schedules;
mod secrets;
mod servers;
mod service;
mod session;
mod snapshot;
mod state;
mod streaming;
mod streams;
mod survivors;
mod tasks;
mod token;
mod variants;
mod volume_copy;
mod volume_files;
mod volume_lists;
mod volumes;
mod web;

pub use config::{Config, FunctionSpec, Listen, Retries, Stop, Tokens};
pub use emulator::Emulator;
pub use error::Error;
pub use recorded::Recorded;

/// `sockaddr_un` holds 108 bytes with the closing NUL.
pub const MAX_SOCKET_PATH: usize = 107;

//! Modal on one machine behind its own gRPC API; calls run as local processes.
//!
//! Callers speak to [`Config::listen`]; each container is a local process with a socket of its own. Everything that was answered
//! is in a journal first, so that killing this process loses nothing. The room knows functions, calls and containers, not what they
//! are for; it has no database.

mod config;
mod error;

pub use config::{Config, FunctionSpec, Listen, Stop};
pub use error::Error;

/// `sockaddr_un` holds 108 bytes with the closing NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// A running emulator. Dropping it without [`Emulator::stop`] is a crash: containers live on and wait for the next one.
#[derive(Debug)]
pub struct Emulator {}

impl Emulator {
    /// Reads the journal, takes surviving containers back, and listens.
    pub async fn start(_config: Config) -> Result<Self, Error> {
        Err(Error::NoListener)
    }

    /// Deploys a function, or replaces its deployment; containers of an older one finish their inputs and leave.
    pub async fn deploy(&self, _spec: FunctionSpec) -> Result<String, Error> {
        Err(Error::NoListener)
    }

    pub async fn stop(self, _stop: Stop) -> Result<(), Error> {
        Ok(())
    }
}

//! Modal's gRPC API as we use it: wire types, channel, metadata, retries.
//!
//! The room speaks of functions, calls, inputs and containers; what a call is good for is its caller's business. No file is read
//! and no environment variable but in [`container::Client::from_env`], where Modal itself hands over the address that way.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test ends at the first surprise")
)]

mod arguments;
mod call;
mod client;
mod credentials;
mod error;
mod outcome;
mod retry;
mod url;

pub mod container;
pub mod verbatim;
pub mod wire;

pub use arguments::{Arguments, decode_arguments, encode_arguments};
pub use client::{Client, FunctionHandle};
pub use credentials::{ClientKind, Credentials};
pub use error::Error;
pub use outcome::{CallResult, CallStatus, FunctionCall, GenericStatus};
pub use url::ServerUrl;

/// Both directions; tonic's own default of 4 MiB is too small for a 2 MiB payload with its frame and for logs.
pub const MAX_MESSAGE_BYTES: usize = 100 << 20;
/// The largest payload that travels inside a message of a synchronous call.
pub const MAX_INLINE_BYTES: u64 = 2 << 20;
/// The largest payload that travels inside a message of an asynchronous call.
pub const MAX_ASYNC_INLINE_BYTES: u64 = 8 << 10;
/// How long one `FunctionGetOutputs` may wait.
pub const MAX_OUTPUTS_WAIT: std::time::Duration = std::time::Duration::from_secs(55);
/// The version of the official client whose behaviour we have checked and claim.
pub const CLIENT_VERSION: &str = "1.6.4";

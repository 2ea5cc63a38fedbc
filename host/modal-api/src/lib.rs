//! Modal's gRPC API as we use it: wire types, channel, metadata, retries.
//!
//! The room speaks of apps, images, functions, calls and files; what they are good for is its caller's business. [`Client`] has all
//! operations of the caller's side, a file a subject; [`container::Client`] those of a container. Variables and the file of tokens are read
//! in [`Config::load`] alone, and in [`container::Client::from_env`], where Modal itself hands over the address that way. Local files
//! are read where an [`Upload`] names them.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test ends at the first surprise")
)]

mod apps;
mod arguments;
mod blobs;
mod call;
mod calls;
mod client;
mod config;
mod connect;
mod credentials;
mod definition;
mod dicts;
mod digest;
mod environments;
mod error;
mod fetch;
mod files;
mod functions;
mod http;
mod images;
mod listing;
mod logs;
mod message;
mod mounts;
mod names;
mod outcome;
mod pickle_shape;
mod profiles;
mod queues;
mod retry;
mod sandbox_specs;
mod sandboxes;
mod secrets;
mod url;
mod volume_get;
mod volume_put;
mod volumes;
mod warnings;

pub mod container;
pub mod pickle;
pub mod verbatim;
pub mod wire;

pub use apps::{AppState, Deployment, Heartbeat, Layout, ListedApp, Publication, Published};
pub use arguments::{Arguments, decode_arguments, encode_arguments};
pub use calls::FunctionHandle;
pub use client::{Client, Hello};
pub use config::{CLIENT_VERSION_VARIABLE, Config};
pub use credentials::{ClientKind, Credentials};
pub use definition::{
    CODE_FOLDER, Code, Definition, HttpServer, PythonClass, Resources, Retries, Scaling, Schedule,
    Variant, VolumeMount,
};
pub use dicts::ListedObject;
pub use environments::{Environment, TokenInfo};
pub use error::Error;
pub use fetch::{FetchedCall, FetchedStatus, Latest};
pub use files::{Contents, Upload};
pub use images::{Image, ImageBuild, ImageLayer, Registry};
pub use listing::Creation;
pub use logs::{FileDescriptor, Follow, LogFilter, LogPiece};
pub use mounts::MountOwner;
pub use outcome::{CallResult, CallStatus, FunctionCall, GenericStatus};
pub use sandboxes::{Readiness, SandboxResult, SandboxSpec, Tunnel};
pub use secrets::{ListedSecret, SecretOwner};
pub use url::ServerUrl;
pub use volume_put::Overwrite;
pub use volumes::{Depth, FileType, ListedVolume, Volume, VolumeEntry, VolumeVersion};

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

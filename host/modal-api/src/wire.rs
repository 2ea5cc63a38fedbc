//! The generated messages, client and server of package `modal.client`, and the names of the metadata headers.
//!
//! Generated code is public because the emulator serves it; everybody else uses [`crate::Client`] and [`crate::container::Client`].

#![expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

tonic::include_proto!("modal.client");

/// The descriptors of this subset, as a serialized `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// One value a logical call, the same in all of its attempts.
pub const IDEMPOTENCY_KEY: &str = "x-idempotency-key";
/// How many attempts of this logical call came before.
pub const RETRY_ATTEMPT: &str = "x-retry-attempt";
/// Who calls: [`crate::ClientKind`] as a decimal number.
pub const CLIENT_TYPE: &str = "x-modal-client-type";
/// The version of the official client that it behaves like.
pub const CLIENT_VERSION: &str = "x-modal-client-version";

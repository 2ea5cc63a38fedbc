//! What an Airflow executor in Python says to the host beside it: generated messages, client and server, nothing else.

#![expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]

tonic::include_proto!("modalflow.executor.v1");

/// The descriptors, as a serialized `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

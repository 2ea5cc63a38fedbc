//! The emulator from outside: real processes, real sockets, kill -9.
//!
//! The containers, and the emulators that are killed, are this test binary started again (see `programs`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::exit,
    reason = "a test ends at the first surprise, and says why it was skipped"
)]

mod calls;
mod deliveries;
mod deployed_app;
mod failures;
mod folders;
mod more_operations;
mod official_client;
mod official_session;
mod operations;
mod our_client;
mod our_requests;
mod programs;
mod redeploys;
mod restarts;
mod support;

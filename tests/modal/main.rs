//! Environments on Modal: deployed to the emulator as on the real one, run by Modal's own container runtime.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod bad_input;
mod cloud;
mod emitted;
mod main_job;

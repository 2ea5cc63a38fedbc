//! What the tests of the whole house share: an environment of their own on a database of their own, the binary as a
//! user runs it, and the filters that make its words comparable.
//!
//! A test fails with a sentence when it is run without `tests/run`, which prepares Python and Postgres.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    reason = "test support"
)]

mod binary;
mod database;
mod environment;
pub mod faults;
mod serve;

pub use binary::{Ran, modalflow, prepared};
pub use database::Database;
pub use environment::TestHost;
pub use serve::Serving;

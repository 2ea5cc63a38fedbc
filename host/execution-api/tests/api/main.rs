//! The Execution API over a real Postgres, asked as workers ask.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first surprise"
)]

mod backend;
mod lifecycle;
mod races;
mod recorded;
mod support;
mod tokens;
mod xcoms;

//! The Execution API over a real Postgres, asked as workers ask.

mod backend;
mod lifecycle;
mod races;
mod recorded;
mod support;
mod tokens;
mod xcoms;

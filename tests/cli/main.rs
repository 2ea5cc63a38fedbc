//! Every command as a conversation.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod help;

//! Runs tasks: fork server, supervisor protocol, logs and XComs through plugins.
//!
//! `Supervisor` runs one try of a task at a time or many at once; `worker::run` is the main of a process that gets them from Modal
//! (or from the emulator). Neither schedules anything, and neither knows a database: the Execution API is all that they see of
//! the rest of the house.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test ends at the first surprise")
)]

pub mod bridge;
mod callback;
mod client;
mod config;
mod conversation;
mod error;
mod fork_server;
mod frames;
mod last_words;
mod log_line;
mod lookups;
mod mask;
mod messages;
mod msgpack;
mod outcome;
mod runners;
mod supervisor;
mod task;
mod task_log;
mod vigil;
pub mod worker;
mod workload;
mod xcoms;

pub use callback::CallbackOutcome;
pub use client::{API_VERSION, Durable};
pub use config::{
    CONFIG_VARIABLE, Limits, PluginChoice, PluginSettings, SupervisorKind, WorkerConfig,
};
pub use error::Error;
pub use outcome::{Fate, TaskOutcome};
pub use supervisor::{Plugins, Supervisor};
pub use workload::{ExecuteTask, RunCallback, Workload, WorkloadTaskInstance};

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! Everything that can go wrong with a plugin, in words for the person who runs it.
//!
//! A guest's own words are cut and never trusted to be short; which case an error is decides what the caller does next.

use std::path::PathBuf;
use std::time::Duration;

/// What `check-settings` or the host found wrong in a plugin's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer into the settings.
    pub pointer: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // What a guest answered.
    #[error("{plugin}: not found: {message}")]
    NotFound { plugin: String, message: String },
    #[error("{plugin}: denied: {message}")]
    Denied { plugin: String, message: String },
    #[error("{plugin}: invalid: {message}")]
    Invalid { plugin: String, message: String },
    #[error("{plugin}: conflict: {message}")]
    Conflict { plugin: String, message: String },
    #[error("{plugin}: too large: {message}")]
    TooLarge { plugin: String, message: String },
    /// Might work later.
    #[error("{plugin}: unavailable: {message}")]
    Unavailable { plugin: String, message: String },
    #[error("{plugin}: {message}")]
    Failed { plugin: String, message: String },

    // What a guest did.
    #[error("plugin {plugin} crashed in {function}: {reason}")]
    Trapped {
        plugin: String,
        function: &'static str,
        reason: String,
    },
    #[error(
        "plugin {plugin} was stopped in {function}: it took longer than {allowed:?}\nhint: raise its grant `deadline` if the work is honest"
    )]
    Deadline {
        plugin: String,
        function: &'static str,
        allowed: Duration,
    },
    #[error("plugin {plugin} broke the contract in {function}: {reason}")]
    Misbehaved {
        plugin: String,
        function: &'static str,
        reason: String,
    },

    // What is wrong with a component or how it was set up.
    #[error("no built-in plugin is named {name:?}\nhint: there are {known}")]
    UnknownBuiltin { name: String, known: String },
    #[error("plugin {plugin} cannot be loaded: {reason}")]
    NotAPlugin { plugin: String, reason: String },
    #[error("plugin {plugin} is no {wanted}; it is {offered}")]
    WrongKind {
        plugin: String,
        wanted: &'static str,
        offered: String,
    },
    #[error(
        "plugin {plugin} wants the store {store:?} ({why})\nhint: grant it a directory under `stores.{store}`"
    )]
    NotGranted {
        plugin: String,
        store: String,
        why: String,
    },
    #[error("the settings of plugin {plugin} are wrong: {}", list(.problems))]
    Settings {
        plugin: String,
        problems: Vec<Problem>,
    },

    // The world.
    #[error("{what} {path:?}")]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the value cannot be read")]
    Payload(#[source] std::io::Error),
    #[error("the value is larger than {limit} bytes")]
    PayloadTooLarge { limit: u64 },
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
}

impl Error {
    /// Whether the same call might work a little later.
    pub fn can_be_retried(&self) -> bool {
        match self {
            Error::Unavailable { .. } | Error::Deadline { .. } => true,
            Error::NotFound { .. }
            | Error::Denied { .. }
            | Error::Invalid { .. }
            | Error::Conflict { .. }
            | Error::TooLarge { .. }
            | Error::Failed { .. }
            | Error::Trapped { .. }
            | Error::Misbehaved { .. }
            | Error::UnknownBuiltin { .. }
            | Error::NotAPlugin { .. }
            | Error::WrongKind { .. }
            | Error::NotGranted { .. }
            | Error::Settings { .. }
            | Error::File { .. }
            | Error::Payload(_)
            | Error::PayloadTooLarge { .. }
            | Error::Engine(_) => false,
        }
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let at = if problem.pointer.is_empty() {
                "settings"
            } else {
                &problem.pointer
            };
            format!("{at}: {}", problem.message)
        })
        .collect();
    lines.join("; ")
}

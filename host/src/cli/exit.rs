//! What a failed command prints and exits with.

use std::fmt::Write;
use std::process::ExitCode;

/// Something the user can mend.
pub(super) const MENDABLE: u8 = 1;
/// The outside world is away: the database, a port, the package index.
pub(super) const OUTSIDE: u8 = 3;

/// Prints the chain of causes once, hints last, and picks the code.
#[expect(clippy::print_stderr, reason = "stderr is where errors go")]
pub(super) fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("{}", message(error));
    ExitCode::from(code(error))
}

fn message(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let mut lines: Vec<&str> = Vec::new();
        for line in text.lines() {
            match line.trim_start().strip_prefix("hint:") {
                Some(hint) => hints.push(hint.trim().to_owned()),
                None => lines.push(line),
            }
        }
        let text = lines.join("\n");
        // Transparent errors repeat what they wrap.
        if !text.is_empty() && !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
    }
    let mut message = format!("error: {}", said.join(": "));
    for hint in hints {
        let _ = write!(message, "\nhint: {hint}");
    }
    message
}

fn code(error: &anyhow::Error) -> u8 {
    let is_outside = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<metadata::Error>(),
            Some(metadata::Error::Unreachable(_))
        ) || cause
            .downcast_ref::<metadata::Error>()
            .is_some_and(metadata::Error::is_passing)
            || of_modal(cause).is_some_and(modal_api::Error::is_passing)
            || matches!(
                cause.downcast_ref::<environment::Error>(),
                Some(environment::Error::Database { .. } | environment::Error::Postgres { .. })
            )
    });
    if is_outside { OUTSIDE } else { MENDABLE }
}

fn of_modal<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a modal_api::Error> {
    let boxed = || cause.downcast_ref::<Box<modal_api::Error>>();
    cause
        .downcast_ref()
        .or_else(|| boxed().map(|error| &**error))
}

/// An error with a way to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{problem}\nhint: {hint}")]
pub(super) struct Hinted {
    pub(super) problem: String,
    pub(super) hint: String,
}

/// Makes such an error.
pub(super) fn hinted(problem: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted {
        problem: problem.into(),
        hint: hint.into(),
    }
    .into()
}

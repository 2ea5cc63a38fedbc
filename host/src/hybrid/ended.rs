//! What the end of a call means, in the caller's words.

use executor_api::{Ended, Refused, ended::Meaning, refused::Reason};
use modal_api::CallResult;

use super::Error;
use crate::executor::Fate;

/// The end of a call that Modal tells of.
pub(super) fn ended(call_id: &str, result: &CallResult) -> Ended {
    let (meaning, what) = match Fate::of(result) {
        Fate::Returned | Fate::Taken => (Meaning::Returned, String::new()),
        Fate::TimedOut => (
            Meaning::TimedOut,
            "it ran longer than its function's timeout".to_owned(),
        ),
        Fate::Cancelled => (Meaning::Cancelled, "the call was cancelled".to_owned()),
        Fate::OutOfMemory => (
            Meaning::OutOfMemory,
            "its container ran out of memory".to_owned(),
        ),
        Fate::PlatformFault { what } => (Meaning::PlatformFault, what),
        Fate::Died { what } | Fate::Refused { what } => (Meaning::Died, what),
        Fate::Unknown => return unknown(call_id),
    };
    let value = result.value.as_ref();
    Ended {
        meaning: meaning.into(),
        what,
        result: value
            .and_then(|value| serde_json::to_string(value).ok())
            .unwrap_or_default(),
        call_id: call_id.to_owned(),
        container_id: result.container_id.clone().unwrap_or_default(),
    }
}

/// The end of a call that Modal does not know any more.
pub(super) fn unknown(call_id: &str) -> Ended {
    Ended {
        meaning: Meaning::Unknown.into(),
        what: "Modal does not know the call any more".to_owned(),
        result: String::new(),
        call_id: call_id.to_owned(),
        container_id: String::new(),
    }
}

/// The end of a call that can't be followed any more.
pub(super) fn lost(call_id: &str, error: &Error) -> Ended {
    let (message, hint) = words(error);
    let hint = if hint.is_empty() {
        hint
    } else {
        format!(" ({hint})")
    };
    Ended {
        meaning: Meaning::Died.into(),
        what: format!("{message}{hint}"),
        result: String::new(),
        call_id: call_id.to_owned(),
        container_id: String::new(),
    }
}

/// Why a workload could not be started.
pub(super) fn refused(error: &Error) -> Refused {
    let (message, hint) = words(error);
    let reason = match error.modal() {
        _ if error.is_signed_out() => Reason::SignedOut,
        Some(modal) if modal.is_passing() => Reason::Away,
        _ => Reason::Invalid,
    };
    Refused {
        reason: reason.into(),
        message,
        hint,
    }
}

/// The chain of causes in one line, and what the user can do about it.
pub(super) fn words(error: &dyn std::error::Error) -> (String, String) {
    let (mut said, mut hints) = (Vec::new(), Vec::new());
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        let mut lines = text.lines();
        said.push(lines.next().unwrap_or_default().to_owned());
        hints.extend(
            lines
                .filter_map(|line| line.strip_prefix("hint: "))
                .map(str::to_owned),
        );
        cause = error.source();
    }
    (said.join(": "), hints.join("; "))
}

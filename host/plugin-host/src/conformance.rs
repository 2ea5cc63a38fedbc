//! What every plugin of a kind is held to: ours, and those that strangers write.
//!
//! The checks know nothing but the traits. They write under Dag ids that begin with `conformance`, and remove what they wrote.

mod dag_validator;
mod log_handler;
mod xcom_backend;

pub use self::dag_validator::dag_validator;
pub use self::log_handler::log_handler;
pub use self::xcom_backend::xcom_backend;

/// One claim about a plugin, and whether it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The claim, as a sentence.
    pub claim: &'static str,
    /// What was seen instead.
    pub failure: Option<String>,
}

impl std::fmt::Display for Check {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.failure {
            None => write!(formatter, "ok   {}", self.claim),
            Some(failure) => write!(formatter, "FAIL {}: {failure}", self.claim),
        }
    }
}

/// Why a claim is not true.
type Outcome = Result<(), String>;

fn check(claim: &'static str, outcome: Outcome) -> Check {
    Check {
        claim,
        failure: outcome.err(),
    }
}

/// An error that should not have been, in the words of its whole chain.
fn unexpected(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

//! What the server wants its user to know: gathered from answers and their trailers, each sentence once, until somebody shows them.

use std::sync::{Arc, Mutex, PoisonError};

use percent_encoding::percent_decode_str;
use tonic::metadata::MetadataMap;

use crate::wire;

/// More than anybody reads; what comes after it is dropped.
const MOST: usize = 100;
const HEADER: &str = "x-modal-warning";

/// Cheap to clone; all clones share one list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    seen: Vec<String>,
    shown: usize,
}

impl Warnings {
    pub(crate) fn add(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.seen.len() < MOST && !list.seen.iter().any(|seen| seen == text) {
            tracing::warn!(warning = text, "the server warns");
            list.seen.push(text.to_owned());
        }
    }

    pub(crate) fn add_all(&self, warnings: &[wire::Warning]) {
        for warning in warnings {
            self.add(&warning.message);
        }
    }

    /// Reads the percent-encoded entries of an answer's headers and trailers, or of a refusal's.
    pub(crate) fn read(&self, metadata: &MetadataMap) {
        for entry in metadata.get_all(HEADER) {
            let text = percent_decode_str(entry.to_str().unwrap_or_default()).decode_utf8_lossy();
            self.add(&text);
        }
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = list.seen[list.shown..].to_vec();
        list.shown = list.seen.len();
        fresh
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::Warnings;

    #[test]
    fn each_warning_is_handed_out_once() {
        let warnings = Warnings::default();
        let mut metadata = MetadataMap::new();
        metadata.append(
            "x-modal-warning",
            "old%20client%3A%20%C3%A4".parse().unwrap(),
        );
        metadata.append("x-modal-warning", "second".parse().unwrap());
        warnings.read(&metadata);
        warnings.read(&metadata);
        warnings.add("");
        assert_eq!(warnings.take(), ["old client: ä", "second"]);
        warnings.add("second");
        warnings.add("third");
        assert_eq!(warnings.take(), ["third"]);
        assert!(warnings.take().is_empty());
    }
}

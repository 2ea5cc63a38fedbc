//! What operations on named objects have in common: how one is made, and how lists come in pages.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::wire;

/// What to do about an object that is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// Only look it up.
    Never,
    IfMissing,
    /// Fail if it is there.
    New,
    /// Put it in the place of what is there.
    Overwrite,
}

impl Creation {
    pub(crate) fn wire(self) -> wire::ObjectCreationType {
        match self {
            Self::Never => wire::ObjectCreationType::Unspecified,
            Self::IfMissing => wire::ObjectCreationType::CreateIfMissing,
            Self::New => wire::ObjectCreationType::CreateFailIfExists,
            Self::Overwrite => wire::ObjectCreationType::CreateOverwriteIfExists,
        }
    }
}

const PAGE: i32 = 100;

/// Goes through a list from its newest entry to its oldest.
#[derive(Debug)]
pub(crate) struct Page {
    before: Option<f64>,
}

impl Default for Page {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            before: Some(now.unwrap_or_default().as_secs_f64()),
        }
    }
}

impl Page {
    /// What to ask for next; none when all was seen.
    pub(crate) fn next(&self) -> Option<wire::ListPagination> {
        self.before.map(|created_before| wire::ListPagination {
            max_objects: PAGE,
            created_before,
        })
    }

    /// Hears when the entries of a page were made.
    pub(crate) fn seen(&mut self, created: impl ExactSizeIterator<Item = f64>) {
        let full = created.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
        let oldest = created.reduce(f64::min);
        // A page that does not lead further back would come again for ever.
        self.before =
            oldest.filter(|oldest| full && self.before.is_some_and(|before| *oldest < before));
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn a_page_that_is_not_full_is_the_last() {
        let mut page = Page::default();
        page.seen((0..100).map(|n| 1000.0 - f64::from(n)));
        assert_eq!(page.next().unwrap().created_before, 901.0);
        page.seen((0..100).map(|_| 901.0));
        assert!(page.next().is_none());
        let mut page = Page::default();
        page.seen([5.0].into_iter());
        assert!(page.next().is_none());
    }
}

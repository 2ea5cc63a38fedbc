//! What is known of each of the caller's calls. Memory only: after a restart the caller tells it again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use executor_api::{Ended, Refused};
use tokio::sync::watch;
use uuid::Uuid;

/// How far a call has come.
#[derive(Debug, Clone)]
pub(super) enum State {
    Starting,
    Running { call_id: String },
    Ended(Ended),
    Refused(Refused),
}

#[derive(Debug)]
struct Entry {
    state: State,
    wish: Wish,
    /// Modal does not let us ask for it.
    is_signed_out: bool,
}

/// What the caller wants with a call that is being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Its end.
    Follow,
    /// Nothing any more.
    Leave,
    /// That it ends.
    Cancel,
}

/// All calls of the caller, by its keys.
#[derive(Debug)]
pub(super) struct Book {
    entries: Mutex<HashMap<Uuid, Entry>>,
    changes: watch::Sender<u64>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Fires with every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Writes a new call down; false when its key is known already.
    pub(super) fn begin(&self, key: Uuid, state: State) -> bool {
        let mut entries = self.entries();
        if entries.contains_key(&key) {
            return false;
        }
        entries.insert(
            key,
            Entry {
                state,
                wish: Wish::Follow,
                is_signed_out: false,
            },
        );
        true
    }

    pub(super) fn state(&self, key: Uuid) -> Option<State> {
        self.entries().get(&key).map(|entry| entry.state.clone())
    }

    /// Notes that a call was started; the answer is what is to be done with it. One that nobody wants is struck out, one that
    /// shall end with [`Self::forget`].
    pub(super) fn started(&self, key: Uuid, call_id: &str) -> Wish {
        let mut entries = self.entries();
        let wish = entries.get(&key).map_or(Wish::Leave, |entry| entry.wish);
        match wish {
            Wish::Follow => {
                if let Some(entry) = entries.get_mut(&key) {
                    entry.state = State::Running {
                        call_id: call_id.to_owned(),
                    };
                }
                self.tell();
            }
            Wish::Leave => {
                entries.remove(&key);
            }
            Wish::Cancel => {}
        }
        wish
    }

    /// Notes whether Modal lets us ask for a call.
    pub(super) fn note_signed_out(&self, key: Uuid, is_signed_out: bool) {
        if let Some(entry) = self.entries().get_mut(&key) {
            entry.is_signed_out = is_signed_out;
        }
    }

    /// Whether there is a call that Modal does not let us ask for.
    pub(super) fn is_signed_out(&self) -> bool {
        self.entries().values().any(|entry| entry.is_signed_out)
    }

    /// Strikes a call out that has been cancelled.
    pub(super) fn forget(&self, key: Uuid) {
        self.entries().remove(&key);
    }

    /// Notes how a call went out. Nothing happens when nobody waits for it.
    pub(super) fn over(&self, key: Uuid, state: State) {
        let mut entries = self.entries();
        match entries.get_mut(&key) {
            Some(entry) if entry.wish == Wish::Follow => {
                entry.state = state;
                self.tell();
            }
            Some(_) => {
                entries.remove(&key);
            }
            None => {}
        }
    }

    /// Strikes a call out. One that is being started stays until it is known what became of it. Answers what was known.
    pub(super) fn strike(&self, key: Uuid, wish: Wish) -> Option<State> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&key)?;
        let state = entry.state.clone();
        match state {
            State::Starting => entry.wish = wish,
            State::Running { .. } | State::Ended(_) | State::Refused(_) => {
                entries.remove(&key);
            }
        }
        Some(state)
    }

    /// Whether calls that shall end are still being started.
    pub(super) fn awaits_cancellation(&self) -> bool {
        let entries = self.entries();
        entries.values().any(|entry| entry.wish == Wish::Cancel)
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Book, State, Wish};

    #[test]
    fn a_key_is_begun_once() {
        let (book, key) = (Book::new(), Uuid::from_u128(1));
        assert!(book.begin(key, State::Starting));
        assert!(!book.begin(key, State::Starting));
    }

    #[test]
    fn a_call_that_is_cancelled_while_it_starts_is_cancelled_when_its_id_comes() {
        let (book, key) = (Book::new(), Uuid::from_u128(1));
        book.begin(key, State::Starting);
        assert!(matches!(
            book.strike(key, Wish::Cancel),
            Some(State::Starting)
        ));
        assert_eq!(book.started(key, "fc-1"), Wish::Cancel);
        assert!(book.awaits_cancellation());
        book.forget(key);
        assert!(book.state(key).is_none());
    }

    #[test]
    fn an_end_that_nobody_waits_for_leaves_nothing() {
        let (book, key) = (Book::new(), Uuid::from_u128(1));
        book.begin(key, State::Starting);
        assert_eq!(book.started(key, "fc-1"), Wish::Follow);
        book.strike(key, Wish::Leave);
        book.over(key, State::Starting);
        assert!(book.state(key).is_none());
    }
}

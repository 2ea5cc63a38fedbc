//! Everything with a name or an id that is not a call: rows of small messages in tables, ordered by key.
//!
//! A [`Change`] is one event of the journal: all of its rows are there after a crash, or none. No rules here.

use std::collections::BTreeMap;

use crate::record::{Event, RowChange, RowsChanged};

/// The first byte of a row's key. Numbers are on disk: they are never used again.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Table {
    Objects = 1,
    Names = 2,
    DictEntries = 3,
    QueueItems = 4,
    Secrets = 5,
    Answers = 6,
    Blobs = 7,
    Mounts = 10,
    Apps = 11,
    Definitions = 12,
    Environments = 13,
    Word = 14,
    Versions = 15,
    Functions = 16,
    Images = 17,
    Chunks = 18,
    Classes = 19,
    Schedules = 20,
    Servers = 21,
}

pub(crate) trait Row: prost::Message + Default {
    const TABLE: Table;
}

#[derive(Debug, Default)]
pub(crate) struct Rows(BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows {
    pub(crate) fn get<R: Row>(&self, key: impl AsRef<[u8]>) -> Option<R> {
        decode(self.0.get(&full_key::<R>(key.as_ref()))?)
    }

    pub(crate) fn has<R: Row>(&self, key: impl AsRef<[u8]>) -> bool {
        self.0.contains_key(&full_key::<R>(key.as_ref()))
    }

    /// Rows whose key begins so, in the order of their keys; keys without the table's byte.
    pub(crate) fn scan<'a, R: Row>(
        &'a self,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], R)> + use<'a, R> {
        self.raw::<R>(prefix)
            .filter_map(|(key, value)| Some((key, decode(value)?)))
    }

    pub(crate) fn keys<'a, R: Row>(
        &'a self,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, R> {
        self.raw::<R>(prefix).map(|(key, _)| key)
    }

    fn raw<'a, R: Row>(
        &'a self,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a Vec<u8>)> + use<'a, R> {
        let from = full_key::<R>(prefix);
        // The first key that does not begin so; there is one, because no table's byte is 255.
        let mut to = from.clone();
        while let Some(last) = to.pop() {
            if last < u8::MAX {
                to.push(last + 1);
                break;
            }
        }
        self.0
            .range(from..to)
            .map(|(key, value)| (&key[1..], value))
    }

    pub(crate) fn apply(&mut self, event: RowsChanged) {
        for RowChange { key, value } in event.rows {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    /// The rows as the events that make them.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        self.0.iter().map(|(key, value)| {
            Event::RowsChanged(RowsChanged {
                rows: vec![RowChange {
                    key: key.clone(),
                    value: Some(value.clone()),
                }],
            })
        })
    }
}

/// Rows that change together.
#[derive(Debug, Default)]
pub(crate) struct Change(RowsChanged);

impl Change {
    pub(crate) fn put<R: Row>(&mut self, key: impl AsRef<[u8]>, row: &R) {
        self.0.rows.push(RowChange {
            key: full_key::<R>(key.as_ref()),
            value: Some(row.encode_to_vec()),
        });
    }

    pub(crate) fn delete<R: Row>(&mut self, key: impl AsRef<[u8]>) {
        self.0.rows.push(RowChange {
            key: full_key::<R>(key.as_ref()),
            value: None,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    pub(crate) fn into_event(self) -> Event {
        Event::RowsChanged(self.0)
    }
}

/// Parts of a key that cannot run into each other: each is led by its length.
pub(crate) fn key(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(&(part.len() as u64).to_be_bytes());
        key.extend_from_slice(part);
    }
    key
}

fn full_key<R: Row>(key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(R::TABLE as u8);
    full.extend_from_slice(key);
    full
}

/// A row that cannot be read was written by a later version: it is as if it were not there.
fn decode<R: Row>(value: &[u8]) -> Option<R> {
    R::decode(value).ok()
}

#[cfg(test)]
mod tests {
    use super::{Change, Row, Rows, Table, key};
    use crate::record::Event;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Word {
        #[prost(string, tag = "1")]
        text: String,
    }

    impl Row for Word {
        const TABLE: Table = Table::DictEntries;
    }

    fn apply(rows: &mut Rows, change: Change) {
        if let Event::RowsChanged(event) = change.into_event() {
            rows.apply(event);
        }
    }

    #[test]
    fn a_scan_finds_what_begins_so_and_nothing_else() {
        let mut rows = Rows::default();
        let mut change = Change::default();
        for name in ["a", "ab", "ab\u{7f}", "b", ""] {
            change.put(
                name,
                &Word {
                    text: name.to_owned(),
                },
            );
        }
        change.put(
            [0xff, 0xff],
            &Word {
                text: "last".to_owned(),
            },
        );
        apply(&mut rows, change);
        let found = |prefix: &[u8]| {
            rows.scan::<Word>(prefix)
                .map(|(_, word)| word.text)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(b"ab"), ["ab", "ab\u{7f}"]);
        assert_eq!(found(&[0xff]), ["last"]);
        assert_eq!(found(b"").len(), 6);
        assert_eq!(rows.events().count(), 6);
    }

    #[test]
    fn parts_of_keys_keep_their_borders() {
        assert_ne!(key(&[b"a", b"bc"]), key(&[b"ab", b"c"]));
        assert!(key(&[b"a", b"bc"]).starts_with(&key(&[b"a"])));
    }
}

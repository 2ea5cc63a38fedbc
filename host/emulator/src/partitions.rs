//! Partitions of queues: where their items are, and when they end.

use prost::bytes::Bytes;
use tonic::Status;

use crate::{
    core::Inner,
    objects::{self, Kind},
    rows::{Change, Row, Rows, Table},
};

/// As on Modal.
const MAX_PARTITION_KEY: usize = 64;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct QueueItemRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) value: Bytes,
    #[prost(double, tag = "2")]
    pub(crate) expires_at: f64,
}

impl Row for QueueItemRow {
    const TABLE: Table = Table::QueueItems;
}

/// Items of partitions that are not over.
pub(crate) fn live_items<'a>(
    rows: &'a Rows,
    prefix: &[u8],
    now: f64,
) -> impl Iterator<Item = (&'a [u8], QueueItemRow)> {
    let mut last = (&[][..], false);
    rows.scan::<QueueItemRow>(prefix).filter(move |&(key, _)| {
        let partition = partition_of(key);
        if last.0 != partition {
            last = (partition, lives(rows, partition, now));
        }
        last.1
    })
}

/// A partition ends as a whole, some time after the last put: what was put last says when.
pub(crate) fn lives(rows: &Rows, partition: &[u8], now: f64) -> bool {
    rows.scan::<QueueItemRow>(partition)
        .next_back()
        .is_some_and(|(_, item)| item.expires_at >= now)
}

/// Drops partitions that are over.
pub(crate) fn forget_old(inner: &Inner, now: f64) -> Change {
    let rows = &inner.state.rows;
    let mut change = Change::default();
    let mut partitions: Vec<_> = rows.keys::<QueueItemRow>(b"").map(partition_of).collect();
    partitions.dedup();
    for partition in partitions {
        if !lives(rows, partition, now) {
            objects::clear::<QueueItemRow>(rows, partition, &mut change);
        }
    }
    change
}

pub(crate) fn partition_of(item_key: &[u8]) -> &[u8] {
    &item_key[..item_key.len().saturating_sub(8)]
}

/// What the keys of a partition's items begin with.
pub(crate) fn partition(rows: &Rows, queue_id: &str, name: &[u8]) -> Result<Vec<u8>, Status> {
    objects::get(rows, Kind::Queue, queue_id)?;
    if name.len() > MAX_PARTITION_KEY {
        return Err(Status::invalid_argument(format!(
            "a partition's key of {} bytes, {MAX_PARTITION_KEY} are allowed",
            name.len()
        )));
    }
    Ok(crate::rows::key(&[queue_id.as_bytes(), name]))
}

pub(crate) fn item_key(partition: &[u8], place: u64) -> Vec<u8> {
    [partition, &place.to_be_bytes()].concat()
}

/// An item's place in its line: the last eight bytes of its key.
pub(crate) fn place(key: &[u8]) -> u64 {
    key.last_chunk::<8>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{QueueItemRow, item_key, live_items, lives};
    use crate::{
        record::Event,
        rows::{Change, Rows, key},
    };

    #[test]
    fn a_partition_ends_as_a_whole_after_its_last_put() {
        let mut rows = Rows::default();
        let mut change = Change::default();
        let partitions = ["", "b"].map(|name| key(&[b"qu-1", name.as_bytes()]));
        let items = [(0, 1, 10.0), (0, 2, 20.0), (1, 1, 30.0), (1, 2, 15.0)];
        for (partition, place, expires_at) in items {
            let row = QueueItemRow {
                value: Default::default(),
                expires_at,
            };
            change.put(item_key(&partitions[partition], place), &row);
        }
        if let Event::RowsChanged(event) = change.into_event() {
            rows.apply(event);
        }
        let alive = |now| {
            let each = partitions
                .each_ref()
                .map(|partition| live_items(&rows, partition, now).count());
            (each, live_items(&rows, &key(&[b"qu-1"]), now).count())
        };
        assert_eq!(alive(12.0), ([2, 2], 4));
        assert_eq!(alive(17.0), ([2, 0], 2));
        assert_eq!(alive(25.0), ([0, 0], 0));
        assert!(!lives(&rows, &key(&[b"qu-1", b"none"]), 0.0));
    }
}

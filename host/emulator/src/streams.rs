//! What generators yield before they end: chunks that the container puts and the caller reads as they come.

use modal_api::wire::{
    self, function_call_get_data_request::CallInfo as GetInfo,
    function_call_put_data_request::CallInfo as PutInfo,
};
use std::time::Duration;
use tonic::{Status, codegen::BoxStream};

use crate::{
    ask::Ask,
    core::Inner,
    objects,
    rows::{Change, Row, Rows, Table},
    streaming::{Batch, stream},
};

/// A stream that brings nothing ends after this time; clients open it again.
const HOLD: Duration = Duration::from_secs(55);

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ChunkRow {
    #[prost(message, optional, tag = "1")]
    chunk: Option<wire::DataChunk>,
}

impl Row for ChunkRow {
    const TABLE: Table = Table::Chunks;
}

pub(crate) fn put(ask: &Ask, request: wire::FunctionCallPutDataRequest) -> Result<(), Status> {
    let Some(PutInfo::FunctionCallId(function_call_id)) = request.call_info else {
        return Err(no_attempts());
    };
    let mut guard = ask.core.lock();
    known(&guard, &function_call_id)?;
    let mut change = Change::default();
    for chunk in request.data_chunks {
        let key = chunk_key(&function_call_id, chunk.index);
        change.put(key, &ChunkRow { chunk: Some(chunk) });
    }
    ask.commit(&mut guard, change)?;
    ask.core.rows_bell.notify_waiters();
    Ok(())
}

pub(crate) fn get(
    ask: Ask,
    request: wire::FunctionCallGetDataRequest,
) -> Result<BoxStream<wire::DataChunk>, Status> {
    let Some(GetInfo::FunctionCallId(function_call_id)) = request.call_info else {
        return Err(no_attempts());
    };
    known(&ask.core.lock(), &function_call_id)?;
    let mut last = request.last_index;
    let next = move |ask: &Ask| {
        let guard = ask.core.lock();
        let ready = chunks(&guard.state.rows, &function_call_id, last);
        last = ready.last().map_or(last, |chunk| chunk.index);
        if known(&guard, &function_call_id).is_ok() {
            Batch::More(ready)
        } else {
            Batch::Last(ready)
        }
    };
    Ok(stream(ask, |core| &core.rows_bell, HOLD, next))
}

/// Drops the chunks of calls that are forgotten.
pub(crate) fn forget_old(inner: &Inner) -> Change {
    let mut change = Change::default();
    for key in inner.state.rows.keys::<ChunkRow>(b"") {
        // A key is the call's id with its length before, and eight bytes.
        let id = key.get(8..key.len().saturating_sub(8)).unwrap_or_default();
        if !inner
            .state
            .calls
            .contains_key(&*String::from_utf8_lossy(id))
        {
            change.delete::<ChunkRow>(key);
        }
    }
    change
}

fn chunks(rows: &Rows, function_call_id: &str, last: u64) -> Vec<wire::DataChunk> {
    // From the end: a generator that has yielded much is not read from its start for each new chunk.
    let mut keys: Vec<_> = rows
        .keys::<ChunkRow>(&objects::own_key(function_call_id))
        .rev()
        .take_while(|key| index(key) > last)
        .collect();
    keys.reverse();
    keys.into_iter()
        .filter_map(|key| rows.get::<ChunkRow>(key)?.chunk)
        .collect()
}

/// A chunk's number: the last eight bytes of its key.
fn index(key: &[u8]) -> u64 {
    key.last_chunk::<8>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn chunk_key(function_call_id: &str, index: u64) -> Vec<u8> {
    [
        objects::own_key(function_call_id).as_slice(),
        &index.to_be_bytes(),
    ]
    .concat()
}

fn known(inner: &Inner, function_call_id: &str) -> Result<(), Status> {
    if inner.state.calls.contains_key(function_call_id) {
        Ok(())
    } else {
        Err(Status::not_found(format!(
            "function call {function_call_id} not found"
        )))
    }
}

fn no_attempts() -> Status {
    Status::invalid_argument("attempts belong to the input plane, which is not here")
}

#[cfg(test)]
mod tests {
    use modal_api::wire::DataChunk;

    use super::{ChunkRow, chunk_key, chunks};
    use crate::{
        record::Event,
        rows::{Change, Rows},
    };

    #[test]
    fn chunks_behind_a_place_come_in_their_order() {
        let mut rows = Rows::default();
        let mut change = Change::default();
        for (call, number) in [("fc-1", 1), ("fc-1", 300), ("fc-1", 2), ("fc-2", 9)] {
            let chunk = Some(DataChunk {
                index: number,
                ..Default::default()
            });
            change.put(chunk_key(call, number), &ChunkRow { chunk });
        }
        if let Event::RowsChanged(event) = change.into_event() {
            rows.apply(event);
        }
        let after = |last| -> Vec<u64> {
            let found = chunks(&rows, "fc-1", last);
            found.iter().map(|chunk| chunk.index).collect()
        };
        assert_eq!(after(0), [1, 2, 300]);
        assert_eq!(after(1), [2, 300]);
        assert_eq!(after(300), [0; 0]);
    }
}

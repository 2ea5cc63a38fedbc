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
    rows.scan::<ChunkRow>(&objects::own_key(function_call_id))
        .filter_map(|(_, row)| row.chunk)
        .filter(|chunk| chunk.index > last)
        .collect()
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

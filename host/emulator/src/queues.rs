//! Queues: each partition of a queue is a line of its own. Values are opaque bytes.

use std::time::Duration;

use modal_api::wire;
use prost::bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;

use crate::{
    ask::Ask,
    objects::{self, Kind, ObjectRow, Wanted, own_key},
    partitions::{QueueItemRow, item_key, live_items, lives, partition, partition_of, place},
    rows::Change,
};

/// As on Modal.
const MAX_ITEM_BYTES: usize = 1 << 20;
const MAX_PARTITION_ITEMS: usize = 5_000;
const MAX_PARTITION_BYTES: usize = 64 << 20;
const MAX_TTL: i32 = 7 * 24 * 3600;
const DEFAULT_TTL: i32 = 24 * 3600;
/// The longest that one request waits.
const MAX_WAIT: Duration = Duration::from_secs(55);
/// How many items one look at what comes next answers.
const MAX_NEXT: usize = 100;

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::QueueGetOrCreateRequest,
) -> Result<wire::QueueGetOrCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    let (name, environment) = (&request.deployment_name, &request.environment_name);
    let wanted = Wanted::plain(Kind::Queue, name, environment, request.object_creation_type);
    let found = objects::get_or_create(ask, &mut guard, &wanted, &mut change)?;
    ask.commit(&mut guard, change)?;
    Ok(wire::QueueGetOrCreateResponse {
        metadata: Some(metadata(&found.row)),
        queue_id: found.id,
    })
}

pub(crate) fn get_by_id(
    ask: &Ask,
    request: wire::QueueGetByIdRequest,
) -> Result<wire::QueueGetByIdResponse, Status> {
    let row = objects::get(&ask.core.lock().state.rows, Kind::Queue, &request.queue_id)?;
    Ok(wire::QueueGetByIdResponse {
        metadata: Some(metadata(&row)),
        queue_id: request.queue_id,
    })
}

pub(crate) fn heartbeat(ask: &Ask, request: wire::QueueHeartbeatRequest) -> Result<(), Status> {
    objects::heartbeat(ask, Kind::Queue, &request.queue_id)
}

pub(crate) fn put(ask: &Ask, request: wire::QueuePutRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    if ask.earlier::<()>(&guard).is_some() {
        return Ok(());
    }
    let now = ask.now();
    let partition = partition(&guard.state.rows, &request.queue_id, &request.partition_key)?;
    if let Some(value) = request
        .values
        .iter()
        .find(|value| value.len() > MAX_ITEM_BYTES)
    {
        return Err(Status::invalid_argument(format!(
            "an item of {} bytes, {MAX_ITEM_BYTES} are allowed",
            value.len()
        )));
    }
    let ttl = match request.partition_ttl_seconds {
        0 => DEFAULT_TTL,
        ttl @ 1..=MAX_TTL => ttl,
        ttl => {
            return Err(Status::invalid_argument(format!(
                "a partition's time to live of {ttl} s, 1 to {MAX_TTL} are allowed"
            )));
        }
    };
    let rows = &guard.state.rows;
    let (mut count, mut bytes) = (request.values.len(), 0);
    bytes += request.values.iter().map(Bytes::len).sum::<usize>();
    for (_, item) in live_items(rows, &partition, now) {
        count += 1;
        bytes += item.value.len();
    }
    if count > MAX_PARTITION_ITEMS || bytes > MAX_PARTITION_BYTES {
        return Err(Status::resource_exhausted(format!(
            "the queue's partition is full: {MAX_PARTITION_ITEMS} items of together {MAX_PARTITION_BYTES} bytes are allowed"
        )));
    }
    let mut change = Change::default();
    if !lives(rows, &partition, now) {
        objects::clear::<QueueItemRow>(rows, &partition, &mut change);
    }
    // By the clock, so that a place is not used again when the line has run empty in between.
    let last = rows
        .keys::<QueueItemRow>(&partition)
        .next_back()
        .map_or(0, place);
    let first = ((now * 1e6) as u64).max(last + 1);
    for (number, value) in (first..).zip(request.values) {
        let row = QueueItemRow {
            value,
            expires_at: now + f64::from(ttl),
        };
        change.put(item_key(&partition, number), &row);
    }
    ask.commit_once(&mut guard, change, &())?;
    ask.core.rows_bell.notify_waiters();
    Ok(())
}

/// Takes the first items of a partition; waits for one if told to.
pub(crate) async fn get(
    ask: &Ask,
    request: wire::QueueGetRequest,
) -> Result<wire::QueueGetResponse, Status> {
    let end = Instant::now() + wait(request.timeout);
    loop {
        let ring = ask.core.rows_bell.notified();
        let mut ring = std::pin::pin!(ring);
        ring.as_mut().enable();
        let answer = take(ask, &request)?;
        if !answer.values.is_empty() || !ask.until_changed(ring, end).await {
            return Ok(answer);
        }
    }
}

fn take(ask: &Ask, request: &wire::QueueGetRequest) -> Result<wire::QueueGetResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let partition = partition(&guard.state.rows, &request.queue_id, &request.partition_key)?;
    let most = usize::try_from(request.n_values.max(1)).unwrap_or(1);
    let mut change = Change::default();
    let mut values = Vec::new();
    for (key, item) in live_items(&guard.state.rows, &partition, ask.now()).take(most) {
        change.delete::<QueueItemRow>(key);
        values.push(item.value);
    }
    let answer = wire::QueueGetResponse { values };
    if !answer.values.is_empty() {
        ask.commit_once(&mut guard, change, &answer)?;
    }
    Ok(answer)
}

/// Items behind an entry, left where they are.
pub(crate) async fn next_items(
    ask: &Ask,
    request: wire::QueueNextItemsRequest,
) -> Result<wire::QueueNextItemsResponse, Status> {
    let after = match request.last_entry_id.as_str() {
        "" => 0,
        id => id
            .parse()
            .map_err(|_| Status::invalid_argument(format!("no entry id: {id}")))?,
    };
    let end = Instant::now() + wait(request.item_poll_timeout);
    loop {
        let ring = ask.core.rows_bell.notified();
        let mut ring = std::pin::pin!(ring);
        ring.as_mut().enable();
        let items: Vec<_> = {
            let guard = ask.core.lock();
            let rows = &guard.state.rows;
            let partition = partition(rows, &request.queue_id, &request.partition_key)?;
            live_items(rows, &partition, ask.now())
                .filter(|(key, _)| place(key) > after)
                .take(MAX_NEXT)
                .map(|(key, item)| wire::QueueItem {
                    value: item.value,
                    entry_id: place(key).to_string(),
                })
                .collect()
        };
        if !items.is_empty() || !ask.until_changed(ring, end).await {
            return Ok(wire::QueueNextItemsResponse { items });
        }
    }
}

pub(crate) fn len(
    ask: &Ask,
    request: wire::QueueLenRequest,
) -> Result<wire::QueueLenResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    if request.total && !request.partition_key.is_empty() {
        return Err(Status::invalid_argument(
            "the total is asked for without a partition",
        ));
    }
    let prefix = if request.total {
        objects::get(rows, Kind::Queue, &request.queue_id)?;
        own_key(&request.queue_id)
    } else {
        partition(rows, &request.queue_id, &request.partition_key)?
    };
    let count = live_items(rows, &prefix, ask.now()).count();
    Ok(wire::QueueLenResponse {
        len: i32::try_from(count).unwrap_or(i32::MAX),
    })
}

pub(crate) fn clear(ask: &Ask, request: wire::QueueClearRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let rows = &guard.state.rows;
    let prefix = if request.all_partitions {
        objects::get(rows, Kind::Queue, &request.queue_id)?;
        own_key(&request.queue_id)
    } else {
        partition(rows, &request.queue_id, &request.partition_key)?
    };
    let mut change = Change::default();
    objects::clear::<QueueItemRow>(rows, &prefix, &mut change);
    ask.commit(&mut guard, change)
}

pub(crate) fn delete(ask: &Ask, request: wire::QueueDeleteRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    objects::delete(
        &guard.state.rows,
        Kind::Queue,
        &request.queue_id,
        &mut change,
    )?;
    ask.commit(&mut guard, change)?;
    // Who waits for an item hears that there is no queue.
    ask.core.rows_bell.notify_waiters();
    Ok(())
}

pub(crate) fn list(
    ask: &Ask,
    request: wire::QueueListRequest,
) -> Result<wire::QueueListResponse, Status> {
    let guard = ask.core.lock();
    let (environment_name, page) = objects::page(
        &guard,
        Kind::Queue,
        &request.environment_name,
        request.pagination,
    )?;
    let now = ask.now();
    let mut queues = Vec::new();
    for (queue_id, row) in page {
        let mut partitions: Vec<&[u8]> = live_items(&guard.state.rows, &own_key(&queue_id), now)
            .map(|(key, _)| partition_of(key))
            .collect();
        let total = partitions.len();
        partitions.dedup();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let most = if request.total_size_limit > 0 {
            request.total_size_limit
        } else {
            i32::MAX
        };
        queues.push(wire::queue_list_response::QueueInfo {
            metadata: Some(metadata(&row)),
            name: row.name,
            created_at: row.created_at,
            num_partitions: count(partitions.len()),
            total_size: count(total).min(most),
            queue_id,
        });
    }
    Ok(wire::QueueListResponse {
        queues,
        environment_name,
    })
}

fn wait(seconds: f32) -> Duration {
    Duration::try_from_secs_f32(seconds)
        .unwrap_or_default()
        .min(MAX_WAIT)
}

fn metadata(row: &ObjectRow) -> wire::QueueMetadata {
    wire::QueueMetadata {
        name: row.name.clone(),
        creation_info: Some(row.creation_info()),
    }
}

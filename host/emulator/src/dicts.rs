//! Dicts: keys and values are opaque bytes, compared byte by byte.

use modal_api::wire;
use prost::bytes::Bytes;
use tonic::Status;

use crate::{
    ask::Ask,
    core::Inner,
    objects::{self, Kind, ObjectRow, Wanted, own_key},
    rows::{Change, Row, Rows, Table},
};

/// As on Modal: a value, and the changes of one request.
const MAX_VALUE_BYTES: usize = 100 << 20;
const MAX_UPDATES: usize = 10_000;
/// An entry that nobody has read or written for so long is gone.
const ENTRY_LIFE: f64 = 7.0 * 24.0 * 3600.0;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DictEntryRow {
    #[prost(bytes = "bytes", tag = "1")]
    value: Bytes,
    #[prost(double, tag = "2")]
    pub(crate) used_at: f64,
}

impl Row for DictEntryRow {
    const TABLE: Table = Table::DictEntries;
}

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::DictGetOrCreateRequest,
) -> Result<wire::DictGetOrCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    let (name, environment) = (&request.deployment_name, &request.environment_name);
    let wanted = Wanted::plain(Kind::Dict, name, environment, request.object_creation_type);
    let found = objects::get_or_create(ask, &mut guard, &wanted, &mut change)?;
    if found.is_new {
        let now = ask.now();
        for entry in request.data {
            put(&found.id, entry, now, &mut change)?;
        }
    }
    ask.commit(&mut guard, change)?;
    Ok(wire::DictGetOrCreateResponse {
        metadata: Some(metadata(&found.row)),
        dict_id: found.id,
    })
}

pub(crate) fn get_by_id(
    ask: &Ask,
    request: wire::DictGetByIdRequest,
) -> Result<wire::DictGetByIdResponse, Status> {
    let row = objects::get(&ask.core.lock().state.rows, Kind::Dict, &request.dict_id)?;
    Ok(wire::DictGetByIdResponse {
        metadata: Some(metadata(&row)),
        dict_id: request.dict_id,
    })
}

pub(crate) fn heartbeat(ask: &Ask, request: wire::DictHeartbeatRequest) -> Result<(), Status> {
    objects::heartbeat(ask, Kind::Dict, &request.dict_id)
}

pub(crate) fn update(
    ask: &Ask,
    request: wire::DictUpdateRequest,
) -> Result<wire::DictUpdateResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let rows = &guard.state.rows;
    objects::get(rows, Kind::Dict, &request.dict_id)?;
    if request.updates.len() > MAX_UPDATES {
        return Err(Status::invalid_argument(format!(
            "{} entries in one update, {MAX_UPDATES} are allowed",
            request.updates.len()
        )));
    }
    if request.if_not_exists && request.updates.len() != 1 {
        return Err(Status::invalid_argument(
            "if_not_exists goes with exactly one entry",
        ));
    }
    let is_there = request.if_not_exists
        && request
            .updates
            .iter()
            .any(|entry| rows.has::<DictEntryRow>(entry_key(&request.dict_id, &entry.key)));
    let mut change = Change::default();
    if !is_there {
        let now = ask.now();
        for entry in request.updates {
            put(&request.dict_id, entry, now, &mut change)?;
        }
    }
    let answer = wire::DictUpdateResponse { created: !is_there };
    if request.if_not_exists {
        ask.commit_once(&mut guard, change, &answer)?;
    } else {
        ask.commit(&mut guard, change)?;
    }
    Ok(answer)
}

pub(crate) fn get(
    ask: &Ask,
    request: wire::DictGetRequest,
) -> Result<wire::DictGetResponse, Status> {
    let mut guard = ask.core.lock();
    let now = ask.now();
    let value = read(&guard.state.rows, &request.dict_id, &request.key, now)?;
    if let Some(row) = &value
        && row.used_at + ENTRY_LIFE / 7.0 < now
    {
        // Reading keeps an entry alive; a day's precision spares the journal.
        let mut change = Change::default();
        let fresh = DictEntryRow {
            used_at: now,
            ..row.clone()
        };
        change.put(entry_key(&request.dict_id, &request.key), &fresh);
        ask.commit(&mut guard, change)?;
    }
    Ok(wire::DictGetResponse {
        found: value.is_some(),
        value: value.map(|row| row.value),
    })
}

pub(crate) fn pop(
    ask: &Ask,
    request: wire::DictPopRequest,
) -> Result<wire::DictPopResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let value = read(&guard.state.rows, &request.dict_id, &request.key, ask.now())?;
    let answer = wire::DictPopResponse {
        found: value.is_some(),
        value: value.map(|row| row.value),
    };
    if answer.found {
        let mut change = Change::default();
        change.delete::<DictEntryRow>(entry_key(&request.dict_id, &request.key));
        ask.commit_once(&mut guard, change, &answer)?;
    }
    Ok(answer)
}

pub(crate) fn contains(
    ask: &Ask,
    request: wire::DictContainsRequest,
) -> Result<wire::DictContainsResponse, Status> {
    let guard = ask.core.lock();
    let value = read(&guard.state.rows, &request.dict_id, &request.key, ask.now())?;
    Ok(wire::DictContainsResponse {
        found: value.is_some(),
    })
}

/// What was asked for of each entry: keys, values or both.
pub(crate) fn contents(
    ask: &Ask,
    request: wire::DictContentsRequest,
) -> Result<Vec<wire::DictEntry>, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    objects::get(rows, Kind::Dict, &request.dict_id)?;
    let prefix = own_key(&request.dict_id);
    let now = ask.now();
    let entries = rows
        .scan::<DictEntryRow>(&prefix)
        .filter(|(_, row)| is_alive(row, now));
    Ok(entries
        .map(|(key, row)| wire::DictEntry {
            key: if request.keys {
                Bytes::copy_from_slice(&key[prefix.len()..])
            } else {
                Bytes::new()
            },
            value: if request.values {
                row.value
            } else {
                Bytes::new()
            },
        })
        .collect())
}

pub(crate) fn len(
    ask: &Ask,
    request: wire::DictLenRequest,
) -> Result<wire::DictLenResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    objects::get(rows, Kind::Dict, &request.dict_id)?;
    let now = ask.now();
    let count = rows
        .scan::<DictEntryRow>(&own_key(&request.dict_id))
        .filter(|(_, row)| is_alive(row, now))
        .count();
    Ok(wire::DictLenResponse {
        len: i32::try_from(count).unwrap_or(i32::MAX),
    })
}

pub(crate) fn clear(ask: &Ask, request: wire::DictClearRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    objects::get(&guard.state.rows, Kind::Dict, &request.dict_id)?;
    let mut change = Change::default();
    objects::clear::<DictEntryRow>(&guard.state.rows, &own_key(&request.dict_id), &mut change);
    ask.commit(&mut guard, change)
}

pub(crate) fn delete(ask: &Ask, request: wire::DictDeleteRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    objects::delete(&guard.state.rows, Kind::Dict, &request.dict_id, &mut change)?;
    ask.commit(&mut guard, change)
}

pub(crate) fn list(
    ask: &Ask,
    request: wire::DictListRequest,
) -> Result<wire::DictListResponse, Status> {
    let (environment_name, page) = objects::page(
        &ask.core.lock(),
        Kind::Dict,
        &request.environment_name,
        request.pagination,
    )?;
    let dicts = page
        .into_iter()
        .map(|(dict_id, row)| wire::dict_list_response::DictInfo {
            metadata: Some(metadata(&row)),
            name: row.name,
            created_at: row.created_at,
            dict_id,
        })
        .collect();
    Ok(wire::DictListResponse {
        dicts,
        environment_name,
    })
}

/// Drops entries that nobody has used for a long time.
pub(crate) fn forget_old(inner: &Inner, now: f64) -> Change {
    let mut change = Change::default();
    for (key, row) in inner.state.rows.scan::<DictEntryRow>(b"") {
        if !is_alive(&row, now) {
            change.delete::<DictEntryRow>(key);
        }
    }
    change
}

fn read(rows: &Rows, dict_id: &str, key: &[u8], now: f64) -> Result<Option<DictEntryRow>, Status> {
    objects::get(rows, Kind::Dict, dict_id)?;
    Ok(rows
        .get::<DictEntryRow>(entry_key(dict_id, key))
        .filter(|row| is_alive(row, now)))
}

fn put(dict_id: &str, entry: wire::DictEntry, now: f64, change: &mut Change) -> Result<(), Status> {
    let size = entry.key.len() + entry.value.len();
    if size > MAX_VALUE_BYTES {
        return Err(Status::invalid_argument(format!(
            "an entry of {size} bytes, {MAX_VALUE_BYTES} are allowed"
        )));
    }
    let row = DictEntryRow {
        value: entry.value,
        used_at: now,
    };
    change.put(entry_key(dict_id, &entry.key), &row);
    Ok(())
}

fn is_alive(row: &DictEntryRow, now: f64) -> bool {
    row.used_at + ENTRY_LIFE >= now
}

fn entry_key(dict_id: &str, key: &[u8]) -> Vec<u8> {
    [own_key(dict_id).as_slice(), key].concat()
}

fn metadata(row: &ObjectRow) -> wire::DictMetadata {
    wire::DictMetadata {
        name: row.name.clone(),
        creation_info: Some(row.creation_info()),
    }
}

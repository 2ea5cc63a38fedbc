//! Secrets: values go in and reach the environment of containers; no answer ever holds one.

use std::collections::HashMap;

use modal_api::wire::{self, ObjectCreationType};
use tonic::Status;

use crate::{
    ask::Ask,
    objects::{self, Kind, ObjectRow, Wanted, own_key},
    rows::{Change, Row, Rows, Table},
};

/// As on Modal.
const MAX_KEY_BYTES: usize = 16 << 10;
const MAX_VALUE_BYTES: usize = 64 << 10;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SecretRow {
    #[prost(map = "string, string", tag = "1")]
    pub(crate) values: HashMap<String, String>,
}

impl Row for SecretRow {
    const TABLE: Table = Table::Secrets;
}

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::SecretGetOrCreateRequest,
) -> Result<wire::SecretGetOrCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    for (key, value) in &request.env_dict {
        check(key, value)?;
    }
    let creation = request.object_creation_type;
    let wanted = Wanted {
        kind: Kind::Secret,
        name: &request.deployment_name,
        environment: &request.environment_name,
        creation,
        app_id: &request.app_id,
        version: 0,
    };
    let found = objects::get_or_create(ask, &mut guard, &wanted, &mut change)?;
    let overwrites = creation == ObjectCreationType::CreateOverwriteIfExists as i32;
    let row = if found.is_new || overwrites {
        let row = SecretRow {
            values: request.env_dict,
        };
        change.put(own_key(&found.id), &row);
        row
    } else {
        values(&guard.state.rows, &found.id)
    };
    let missing: Vec<_> = request
        .required_keys
        .iter()
        .filter(|key| !row.values.contains_key(*key))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return Err(Status::not_found(format!(
            "Secret '{}' lacks the required keys {}",
            request.deployment_name,
            missing.join(", ")
        )));
    }
    ask.commit(&mut guard, change)?;
    Ok(wire::SecretGetOrCreateResponse {
        metadata: Some(metadata(&found.row, &row)),
        secret_id: found.id,
    })
}

pub(crate) fn get_info(
    ask: &Ask,
    request: wire::SecretGetInfoRequest,
) -> Result<wire::SecretGetInfoResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    let row = objects::get(rows, Kind::Secret, &request.secret_id)?;
    Ok(wire::SecretGetInfoResponse {
        metadata: Some(metadata(&row, &values(rows, &request.secret_id))),
    })
}

/// Sets some keys and drops others; the rest stays.
pub(crate) fn update(ask: &Ask, request: wire::SecretUpdateRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let rows = &guard.state.rows;
    objects::get(rows, Kind::Secret, &request.secret_id)?;
    let mut row = values(rows, &request.secret_id);
    for update in request.updates {
        match update.value {
            Some(value) => {
                check(&update.key, &value)?;
                row.values.insert(update.key, value);
            }
            None => {
                row.values.remove(&update.key);
            }
        }
    }
    let mut change = Change::default();
    change.put(own_key(&request.secret_id), &row);
    ask.commit(&mut guard, change)
}

pub(crate) fn delete(ask: &Ask, request: wire::SecretDeleteRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut change = Change::default();
    objects::delete(
        &guard.state.rows,
        Kind::Secret,
        &request.secret_id,
        &mut change,
    )?;
    ask.commit(&mut guard, change)
}

pub(crate) fn list(
    ask: &Ask,
    request: wire::SecretListRequest,
) -> Result<wire::SecretListResponse, Status> {
    let guard = ask.core.lock();
    let (environment_name, page) = objects::page(
        &guard,
        Kind::Secret,
        &request.environment_name,
        request.pagination,
    )?;
    let items = page
        .into_iter()
        .map(|(secret_id, row)| wire::SecretListItem {
            metadata: Some(metadata(&row, &values(&guard.state.rows, &secret_id))),
            label: row.name,
            created_at: row.created_at,
            last_used_at: 0.0,
            environment_name: row.environment,
            secret_id,
        })
        .collect();
    Ok(wire::SecretListResponse {
        items,
        environment_name,
    })
}

/// The values of a secret; empty for one that is gone.
pub(crate) fn values(rows: &Rows, secret_id: &str) -> SecretRow {
    rows.get(own_key(secret_id)).unwrap_or_default()
}

fn check(key: &str, value: &str) -> Result<(), Status> {
    // What no environment of a process could hold.
    if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
        return Err(Status::invalid_argument(format!(
            "secret key '{key}' cannot be an environment variable"
        )));
    }
    if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
        return Err(Status::invalid_argument(format!(
            "a secret's key may have {MAX_KEY_BYTES} bytes and its value {MAX_VALUE_BYTES}"
        )));
    }
    Ok(())
}

fn metadata(row: &ObjectRow, values: &SecretRow) -> wire::SecretMetadata {
    let mut keys: Vec<_> = values.values.keys().cloned().collect();
    keys.sort_unstable();
    wire::SecretMetadata {
        name: row.name.clone(),
        creation_info: Some(row.creation_info()),
        keys,
        environment_name: row.environment.clone(),
        last_used_at: 0.0,
    }
}

//! What all objects with names have in common: the rules for names, the ways to create, pages of listings, and their end.
//!
//! An object's own rows (a dict's entries, a volume's files) have keys that begin with [`own_key`]: they go when it goes.

use modal_api::wire::{CreationInfo, ListPagination, ObjectCreationType};
use tonic::Status;

use crate::{
    ask::Ask,
    core::Inner,
    dicts::DictEntryRow,
    ids,
    partitions::QueueItemRow,
    rows::{Change, Row, Rows, Table, key},
    secrets::SecretRow,
    session,
};

/// Modal answers at most so many in one page.
const MAX_PAGE: usize = 100;
/// An ephemeral object that nobody has spoken of for so long is gone. The official client speaks every 300 s.
const EPHEMERAL_LIFE: f64 = 900.0;
/// For kinds that have no heartbeat.
const SILENT_LIFE: f64 = 24.0 * 3600.0;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ObjectRow {
    /// An id's first two letters.
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    /// Empty for one without a name.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) environment: String,
    #[prost(double, tag = "4")]
    pub(crate) created_at: f64,
    #[prost(bool, tag = "5")]
    pub(crate) is_ephemeral: bool,
    /// The app that owns one without a name.
    #[prost(string, tag = "6")]
    pub(crate) app_id: String,
    /// A volume's version; 0 for all else.
    #[prost(int32, tag = "7")]
    pub(crate) version: i32,
}

impl Row for ObjectRow {
    const TABLE: Table = Table::Objects;
}

impl ObjectRow {
    pub(crate) fn creation_info(&self) -> CreationInfo {
        CreationInfo {
            created_at: self.created_at,
            created_by: session::USER.to_owned(),
        }
    }
}

/// From kind, environment and name to id.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NameRow {
    #[prost(string, tag = "1")]
    id: String,
}

impl Row for NameRow {
    const TABLE: Table = Table::Names;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dict,
    Queue,
    Secret,
    Volume,
}

impl Kind {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Dict => "di",
            Self::Queue => "qu",
            Self::Secret => "st",
            Self::Volume => "vo",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Dict => "Dict",
            Self::Queue => "Queue",
            Self::Secret => "Secret",
            Self::Volume => "Volume",
        }
    }

    fn has_heartbeat(self) -> bool {
        match self {
            Self::Dict | Self::Queue | Self::Volume => true,
            Self::Secret => false,
        }
    }
}

/// What a `…GetOrCreate` asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) environment: &'a str,
    pub(crate) creation: i32,
    pub(crate) app_id: &'a str,
    pub(crate) version: i32,
}

impl<'a> Wanted<'a> {
    /// What belongs to no app and has no version.
    pub(crate) const fn plain(
        kind: Kind,
        name: &'a str,
        environment: &'a str,
        creation: i32,
    ) -> Self {
        Self {
            kind,
            name,
            environment,
            creation,
            app_id: "",
            version: 0,
        }
    }
}

pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) row: ObjectRow,
    /// The rows that create it are in the change.
    pub(crate) is_new: bool,
}

/// Finds an object or adds the rows that make it.
pub(crate) fn get_or_create(
    ask: &Ask,
    inner: &mut Inner,
    wanted: &Wanted<'_>,
    change: &mut Change,
) -> Result<Found, Status> {
    use ObjectCreationType as Creation;
    let creation = Creation::try_from(wanted.creation)
        .map_err(|_| Status::invalid_argument("unknown object creation type"))?;
    let environment = session::environment(inner, wanted.environment)?;
    let anonymous = matches!(
        creation,
        Creation::AnonymousOwnedByApp | Creation::Ephemeral
    );
    if !anonymous {
        check_name(wanted.kind.word(), wanted.name)?;
        if let Some((id, row)) = by_name(&inner.state.rows, wanted.kind, &environment, wanted.name)
        {
            if creation == Creation::CreateFailIfExists {
                return Err(Status::already_exists(format!(
                    "{} '{}' already exists in environment '{environment}'",
                    wanted.kind.word(),
                    wanted.name
                )));
            }
            return Ok(Found {
                id,
                row,
                is_new: false,
            });
        }
        if creation == Creation::Unspecified {
            return Err(Status::not_found(format!(
                "{} '{}' not found in environment '{environment}'",
                wanted.kind.word(),
                wanted.name
            )));
        }
    }
    let id = ids::object(wanted.kind.prefix());
    let row = ObjectRow {
        kind: wanted.kind.prefix().to_owned(),
        name: if anonymous { "" } else { wanted.name }.to_owned(),
        environment,
        created_at: ask.wall(),
        is_ephemeral: creation == Creation::Ephemeral,
        app_id: wanted.app_id.to_owned(),
        version: wanted.version,
    };
    change.put(&id, &row);
    if !anonymous {
        change.put(
            name_key(wanted.kind, &row.environment, &row.name),
            &NameRow { id: id.clone() },
        );
    }
    if row.is_ephemeral {
        inner.heard_of.insert(id.clone(), ask.now());
    }
    Ok(Found {
        id,
        row,
        is_new: true,
    })
}

pub(crate) fn get(rows: &Rows, kind: Kind, id: &str) -> Result<ObjectRow, Status> {
    rows.get::<ObjectRow>(id)
        .filter(|row| row.kind == kind.prefix())
        .ok_or_else(|| Status::not_found(format!("{} {id} not found", kind.word())))
}

fn by_name(rows: &Rows, kind: Kind, environment: &str, name: &str) -> Option<(String, ObjectRow)> {
    let NameRow { id } = rows.get(name_key(kind, environment, name))?;
    let row = rows.get(&id)?;
    Some((id, row))
}

/// Named objects of an environment, the newest first, as many as a page holds.
pub(crate) fn page(
    inner: &Inner,
    kind: Kind,
    environment: &str,
    pagination: Option<ListPagination>,
) -> Result<(String, Vec<(String, ObjectRow)>), Status> {
    let environment = session::environment(inner, environment)?;
    let pagination = pagination.unwrap_or_default();
    let most = usize::try_from(pagination.max_objects)
        .ok()
        .filter(|most| *most > 0)
        .unwrap_or(MAX_PAGE)
        .min(MAX_PAGE);
    let is_older = |row: &ObjectRow| {
        pagination.created_before <= 0.0 || row.created_at < pagination.created_before
    };
    let rows = &inner.state.rows;
    let prefix = key(&[kind.prefix().as_bytes(), environment.as_bytes()]);
    let mut found: Vec<_> = rows
        .scan::<NameRow>(&prefix)
        .filter_map(|(_, NameRow { id })| Some((rows.get::<ObjectRow>(&id)?, id)))
        .filter(|(row, _)| is_older(row))
        .map(|(row, id)| (id, row))
        .collect();
    found.sort_by(|(_, a), (_, b)| b.created_at.total_cmp(&a.created_at));
    found.truncate(most);
    Ok((environment, found))
}

/// Adds the rows that end an object with all that it holds.
pub(crate) fn delete(rows: &Rows, kind: Kind, id: &str, change: &mut Change) -> Result<(), Status> {
    let row = get(rows, kind, id)?;
    forget(rows, id, &row, change);
    Ok(())
}

fn forget(rows: &Rows, id: &str, row: &ObjectRow, change: &mut Change) {
    change.delete::<ObjectRow>(id);
    if !row.name.is_empty() {
        change.delete::<NameRow>(key(&[
            row.kind.as_bytes(),
            row.environment.as_bytes(),
            row.name.as_bytes(),
        ]));
    }
    clear::<DictEntryRow>(rows, &own_key(id), change);
    clear::<QueueItemRow>(rows, &own_key(id), change);
    clear::<SecretRow>(rows, &own_key(id), change);
}

/// Adds the rows that end all objects of an environment.
pub(crate) fn delete_all_in(rows: &Rows, environment: &str, change: &mut Change) {
    for (id, row) in rows.scan::<ObjectRow>(b"") {
        if row.environment == environment {
            forget(rows, &String::from_utf8_lossy(id), &row, change);
        }
    }
}

/// Adds the rows that end what was made for an app and has no name of its own.
pub(crate) fn forget_owned(rows: &Rows, app_id: &str, change: &mut Change) {
    for (id, row) in rows.scan::<ObjectRow>(b"") {
        if row.app_id == app_id && row.name.is_empty() && !row.is_ephemeral {
            forget(rows, &String::from_utf8_lossy(id), &row, change);
        }
    }
}

/// Adds the rows that empty a part of a table.
pub(crate) fn clear<R: Row>(rows: &Rows, prefix: &[u8], change: &mut Change) {
    for key in rows.keys::<R>(prefix) {
        change.delete::<R>(key);
    }
}

/// Gives a named object another name.
pub(crate) fn rename(
    rows: &Rows,
    kind: Kind,
    id: &str,
    name: &str,
    change: &mut Change,
) -> Result<(), Status> {
    let mut row = get(rows, kind, id)?;
    check_name(kind.word(), name)?;
    if row.name == name {
        return Ok(());
    }
    if by_name(rows, kind, &row.environment, name).is_some() {
        return Err(Status::already_exists(format!(
            "{} '{name}' already exists in environment '{}'",
            kind.word(),
            row.environment
        )));
    }
    change.delete::<NameRow>(name_key(kind, &row.environment, &row.name));
    change.put(
        name_key(kind, &row.environment, name),
        &NameRow { id: id.to_owned() },
    );
    row.name = name.to_owned();
    change.put(id, &row);
    Ok(())
}

pub(crate) fn heartbeat(ask: &Ask, kind: Kind, id: &str) -> Result<(), Status> {
    let mut inner = ask.core.lock();
    get(&inner.state.rows, kind, id)?;
    inner.heard_of.insert(id.to_owned(), ask.now());
    Ok(())
}

/// Ends ephemeral objects that nobody has spoken of; `alive_since` is when this life of the emulator began.
pub(crate) fn forget_silent(inner: &mut Inner, alive_since: f64, now: f64) -> Change {
    let mut change = Change::default();
    let rows = &inner.state.rows;
    let mut gone = Vec::new();
    for (id, row) in rows
        .scan::<ObjectRow>(b"")
        .filter(|(_, row)| row.is_ephemeral)
    {
        let id = String::from_utf8_lossy(id).into_owned();
        let speaks = [Kind::Dict, Kind::Queue, Kind::Volume, Kind::Secret]
            .into_iter()
            .any(|kind| kind.prefix() == row.kind && kind.has_heartbeat());
        let life = if speaks { EPHEMERAL_LIFE } else { SILENT_LIFE };
        let heard = inner.heard_of.get(&id).copied().unwrap_or(0.0);
        if heard.max(alive_since) + life < now {
            forget(rows, &id, &row, &mut change);
            gone.push(id);
        }
    }
    for id in gone {
        inner.heard_of.remove(&id);
    }
    change
}

/// What the keys of an object's own rows begin with.
pub(crate) fn own_key(id: &str) -> Vec<u8> {
    key(&[id.as_bytes()])
}

fn name_key(kind: Kind, environment: &str, name: &str) -> Vec<u8> {
    key(&[
        kind.prefix().as_bytes(),
        environment.as_bytes(),
        name.as_bytes(),
    ])
}

/// Letters, digits, `-_.`, at most 64, and not like an app's id.
pub(crate) fn check_name(word: &str, name: &str) -> Result<(), Status> {
    let is_app_id = name.strip_prefix("ap-").is_some_and(|rest| {
        rest.len() == 22 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    let is_good = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !is_app_id;
    if is_good {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "invalid {word} name '{name}': 1 to 64 letters, digits, dashes, periods and underscores are allowed, and nothing like an App ID"
    )))
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_follow_modals_rules() {
        let long = "x".repeat(65);
        let app = format!("ap-{}", "x".repeat(22));
        let refused: Vec<_> = [
            "a-B_c.9",
            "",
            "ä",
            "a/b",
            " ",
            "ap-x",
            &long,
            &app,
            &long[1..],
        ]
        .into_iter()
        .filter(|name| check_name("Dict", name).is_err())
        .collect();
        assert_eq!(refused, ["", "ä", "a/b", " ", &long, &app]);
    }
}

//! XComs as files on a volume, small ones in the database.
//!
//! A value's file is `{dag_id}/{run_id}/{task_id}[/map_index=N]/{key}` in the store `xcom`, each id as one encoded part. Its
//! row holds the length and the SHA-256, which are checked whenever it is read. The path always comes from the coordinate:
//! whoever can write a row cannot point it at another task's value.

mod inline;
mod path;

use modalflow_plugin::bytes::{Body, Payload};
use modalflow_plugin::object_store::Store;
use modalflow_plugin::xcom_backend::{export, plugin, xcom};
use modalflow_plugin::{Error, PayloadExt, TaskKey, read_settings, settings_error};
use serde::Deserialize;

use crate::path::{name, path, task_path};

const STORE: &str = "xcom";
const SHA256: &str = "sha256";
const PREVIEW_CHARACTERS: usize = 200;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Values up to this many bytes stay in the database, where the UI shows them whole.
    inline_bytes: u64,
    /// Larger values are refused.
    max_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            inline_bytes: 8 << 10,
            max_bytes: 1 << 30,
        }
    }
}

const SETTINGS_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "inline_bytes": {
      "type": "integer", "minimum": 0, "default": 8192,
      "description": "Values up to this many bytes stay in the database, where the UI shows them whole."
    },
    "max_bytes": {
      "type": "integer", "minimum": 1, "default": 1073741824,
      "description": "Larger values are refused."
    }
  }
}"#;

struct VolumeXcom;

impl plugin::Guest for VolumeXcom {
    fn describe() -> plugin::Manifest {
        plugin::Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            wishes: vec![plugin::Wish {
                capability: "store".to_owned(),
                name: STORE.to_owned(),
                write: true,
                required: true,
                why: "it keeps values there".to_owned(),
            }],
            settings_schema: SETTINGS_SCHEMA.to_owned(),
        }
    }

    fn check_settings(settings: String) -> Vec<plugin::Problem> {
        let wrong = settings_error::<Settings>(&settings);
        wrong
            .into_iter()
            .map(|message| plugin::Problem {
                pointer: String::new(),
                message,
            })
            .collect()
    }
}

impl xcom::Guest for VolumeXcom {
    fn put(at: xcom::Coordinate, value: Payload) -> Result<xcom::Stored, Error> {
        let settings: Settings = read_settings()?;
        let size = value.size();
        if size > settings.max_bytes {
            return Err(Error::TooLarge(format!(
                "{} has {size} bytes, more than the {} allowed\n\
                 hint: raise `max_bytes` in the settings of volume-xcom, or hand over a path instead of the data",
                name(&at),
                settings.max_bytes
            )));
        }
        // The scheduler itself reads what a skipping operator left.
        let for_the_scheduler = at.key.starts_with("skipmixin");
        if !for_the_scheduler && size > settings.inline_bytes {
            return put_file(&at, value.into_body());
        }
        let bytes = value.into_bytes()?;
        match inline::database_text(&bytes) {
            Some(text) => Ok(xcom::Stored::InDatabase(text.to_owned())),
            None if for_the_scheduler => {
                Err(Error::Invalid(format!("{} is not plain JSON", name(&at))))
            }
            None => put_file(&at, Body::of(&bytes)),
        }
    }

    fn get(at: xcom::Coordinate, stored: xcom::Stored) -> Result<Payload, Error> {
        match stored {
            xcom::Stored::InDatabase(json) => Ok(Payload::Inline(json.into_bytes())),
            xcom::Stored::Elsewhere(reference) => get_file(&at, &reference),
        }
    }

    fn purge(scope: xcom::Scope, _known: Vec<xcom::Reference>) -> Result<u64, Error> {
        let store = Store::open(STORE)?;
        match scope {
            xcom::Scope::One(at) => Ok(u64::from(store.delete(&path(&at))?)),
            xcom::Scope::Task(task) if task.map_index >= 0 => store.delete_all(&task_path(&task)),
            xcom::Scope::Task(task) => purge_unmapped(&store, &task),
            xcom::Scope::Run((dag_id, run_id)) => {
                store.delete_all(&format!("{}/{}", path::part(&dag_id), path::part(&run_id)))
            }
            xcom::Scope::Dag(dag_id) => store.delete_all(&path::part(&dag_id)),
        }
    }
}

fn put_file(at: &xcom::Coordinate, body: Body) -> Result<xcom::Stored, Error> {
    let path = path(at);
    let size = body.size();
    let sha256 = body.sha256()?;
    let preview = inline::preview(
        &body.read(4 * PREVIEW_CHARACTERS as u32)?,
        size,
        PREVIEW_CHARACTERS,
    );
    Store::open(STORE)?
        .put(&path, Payload::Handle(body))
        .map_err(|error| at_key(at, error))?;
    Ok(xcom::Stored::Elsewhere(xcom::Reference {
        uri: format!("{STORE}:{path}"),
        size: Some(size),
        preview: Some(preview),
        attributes: vec![(SHA256.to_owned(), sha256)],
    }))
}

fn get_file(at: &xcom::Coordinate, reference: &xcom::Reference) -> Result<Payload, Error> {
    let path = path(at);
    let uri = format!("{STORE}:{path}");
    if reference.uri != uri {
        return Err(Error::Denied(format!(
            "the row of {} points at `{}`; its file is `{uri}`",
            name(at),
            reference.uri
        )));
    }
    let wanted = reference
        .attributes
        .iter()
        .find(|(attribute, _)| attribute == SHA256);
    let Some((_, wanted)) = wanted else {
        return Err(Error::Invalid(format!(
            "the row of {} has no {SHA256}",
            name(at)
        )));
    };
    let found = Store::open(STORE)?.get(&path, None);
    let (meta, payload) = found.map_err(|error| match error {
        Error::NotFound(_) => Error::NotFound(format!(
            "{}: its file {path} is gone from the store",
            name(at)
        )),
        error => at_key(at, error),
    })?;
    if reference.size.is_some_and(|size| size != meta.size) {
        return Err(Error::Failed(format!(
            "{}: its file {path} has {} bytes where {} were written",
            name(at),
            meta.size,
            reference.size.unwrap_or_default()
        )));
    }
    let body = payload.into_body();
    if body.sha256().map_err(|error| at_key(at, error))? != *wanted {
        return Err(Error::Failed(format!(
            "{}: its file {path} is damaged: the checksum is not the one that was written",
            name(at)
        )));
    }
    Ok(Payload::Handle(body))
}

/// The directory of a task holds the values of its unmapped instance, and below them a directory for each mapped one.
fn purge_unmapped(store: &Store, task: &TaskKey) -> Result<u64, Error> {
    let directory = task_path(task);
    let mut removed = 0;
    let mut after = None;
    loop {
        let page = store.list(&directory, after.as_deref(), 1000)?;
        for entry in page.entries.iter().filter(|entry| entry.size.is_some()) {
            removed += u64::from(store.delete(&format!("{directory}/{}", entry.name))?);
        }
        if page.next.is_none() {
            return Ok(removed);
        }
        after = page.next;
    }
}

/// The same error, naming the value.
fn at_key(at: &xcom::Coordinate, error: Error) -> Error {
    let named = |text: String| format!("{}: {text}", name(at));
    match error {
        Error::NotFound(text) => Error::NotFound(named(text)),
        Error::Denied(text) => Error::Denied(named(text)),
        Error::Invalid(text) => Error::Invalid(named(text)),
        Error::Conflict(text) => Error::Conflict(named(text)),
        Error::TooLarge(text) => Error::TooLarge(named(text)),
        Error::Unavailable(text) => Error::Unavailable(named(text)),
        Error::Failed(text) => Error::Failed(named(text)),
    }
}

export!(VolumeXcom);

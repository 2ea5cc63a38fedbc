//! Task logs as files, laid out as Airflow's FileTaskHandler does, so that Airflow's own UI finds them:
//! `dag_id=…/run_id=…/task_id=…[/map_index=N]/attempt=N.log` in the store `logs`, each id as one encoded part.
//!
//! A file grows while its task runs and may be read at any time.

mod record;

use modalflow_plugin::bytes::Payload;
use modalflow_plugin::log_handler::{export, log, plugin};
use modalflow_plugin::object_store::{ByteRange, Store, part};
use modalflow_plugin::{Error, PayloadExt, TaskKey, settings_error};
use serde::Deserialize;

const STORE: &str = "logs";
/// How much of a file is looked at in one step.
const STEP: u64 = 256 << 10;
/// A longer line comes in pieces.
const LONGEST_LINE: usize = 64 << 10;
/// A page ends after about this many bytes of the file.
const LONGEST_PAGE: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

struct FileTaskHandler;

impl plugin::Guest for FileTaskHandler {
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
                why: "it keeps logs there".to_owned(),
            }],
            settings_schema: r#"{"type": "object", "additionalProperties": false}"#.to_owned(),
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

impl log::Guest for FileTaskHandler {
    fn append(task: TaskKey, offset: u64, lines: Vec<u8>) -> Result<u64, Error> {
        Store::open(STORE)?.append(&path(&task), offset, Payload::Inline(lines))
    }

    fn finish(task: TaskKey, _outcome: log::Outcome) -> Result<(), Error> {
        let store = Store::open(STORE)?;
        let path = path(&task);
        let len = store.append(&path, 0, Payload::Inline(Vec::new()))?;
        let Some(last) = len.checked_sub(1) else {
            return Ok(());
        };
        let range = ByteRange {
            start: last,
            len: None,
        };
        // A worker that was killed may have left half a line; readers wait for its end.
        if store.get(&path, Some(range))?.1.into_bytes()? != b"\n" {
            store.append(&path, len, Payload::Inline(b"\n".to_vec()))?;
        }
        Ok(())
    }

    fn read(task: TaskKey, after: Option<String>, max_records: u32) -> Result<log::Page, Error> {
        let store = Store::open(STORE)?;
        let path = path(&task);
        let mut offset = match &after {
            Some(token) => token.parse().map_err(|_| {
                Error::Invalid(format!("{token:?} is not where a page of {path} ends"))
            })?,
            None => 0,
        };
        let first = offset;
        let mut records = Vec::new();
        let mut at_end = false;
        while records.len() < max_records as usize && !at_end && offset - first < LONGEST_PAGE {
            let range = ByteRange {
                start: offset,
                len: Some(STEP),
            };
            let (meta, bytes) = store.get(&path, Some(range)).map_err(|error| match error {
                Error::NotFound(_) => Error::NotFound(format!("there is no log {path}")),
                error => error,
            })?;
            let bytes = bytes.into_bytes()?;
            let more = offset + (bytes.len() as u64) < meta.size;
            let room = max_records as usize - records.len();
            let taken = take_lines(&bytes, room, &mut records);
            offset += taken as u64;
            // What is left without a newline is half a line that its writer has not finished yet.
            at_end = !more && !bytes[taken..].contains(&b'\n');
        }
        Ok(log::Page {
            records,
            sources: vec![path],
            next: Some(offset.to_string()),
            at_end,
        })
    }

    fn purge(dag_id: String, run_id: Option<String>) -> Result<u64, Error> {
        let mut prefix = format!("dag_id={}", part(&dag_id));
        if let Some(run_id) = run_id {
            prefix.push_str(&format!("/run_id={}", part(&run_id)));
        }
        Store::open(STORE)?.delete_all(&prefix)
    }
}

/// Turns whole lines into records, at most `room` of them, and says how many bytes they took.
fn take_lines(bytes: &[u8], room: usize, records: &mut Vec<log::LogRecord>) -> usize {
    let mut taken = 0;
    for _ in 0..room {
        let rest = &bytes[taken..];
        let window = &rest[..rest.len().min(LONGEST_LINE)];
        let (line, len) = match window.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], end + 1),
            None if rest.len() > LONGEST_LINE => (window, LONGEST_LINE),
            None => break,
        };
        if !line.is_empty() {
            records.push(record::parse(line));
        }
        taken += len;
    }
    taken
}

fn path(task: &TaskKey) -> String {
    let mut path = format!(
        "dag_id={}/run_id={}/task_id={}",
        part(&task.dag_id),
        part(&task.run_id),
        part(&task.task_id)
    );
    if task.map_index >= 0 {
        path.push_str(&format!("/map_index={}", task.map_index));
    }
    format!("{path}/attempt={}.log", task.try_number)
}

export!(FileTaskHandler);

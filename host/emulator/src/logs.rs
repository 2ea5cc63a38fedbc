//! What containers of deployed functions write: taken from their output files line by line, kept in one file an app.
//!
//! A container writes into files of its own, so that it needs nobody to read. From these the lines are pumped into the app's file with
//! a moment and the call that they belong to. Each record says up to where its source was read: a restart goes on from there.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use modal_api::wire::FileDescriptor;
use prost::Message;

/// An app's file is cut to its newer half beyond this size.
const MAX_BYTES: u64 = 32 << 20;
/// An output file of a container that runs for long is emptied beyond this size, once it has been read.
const MAX_SOURCE: u64 = 16 << 20;
/// A line without an end is taken as it is beyond this size.
const MAX_LINE: usize = 64 << 10;
/// So much of a source is read at once.
const CHUNK: u64 = 4 << 20;
/// So many looks take as much as an app's log keeps, each but for a line that goes on in the next: a container that writes faster than
/// we read does not hold us for ever.
pub(crate) const LAST_LOOKS: u64 = MAX_BYTES / CHUNK + 1;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogRecord {
    #[prost(double, tag = "1")]
    pub(crate) at: f64,
    #[prost(string, tag = "2")]
    pub(crate) task_id: String,
    #[prost(enumeration = "FileDescriptor", tag = "3")]
    pub(crate) source: i32,
    #[prost(string, tag = "4")]
    pub(crate) function_id: String,
    #[prost(string, tag = "5")]
    pub(crate) function_call_id: String,
    #[prost(string, tag = "6")]
    pub(crate) input_id: String,
    #[prost(string, tag = "7")]
    pub(crate) line: String,
    /// Where the next line begins in the container's output file.
    #[prost(uint64, tag = "8")]
    offset: u64,
}

/// Whose output is taken, and for which call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) app_id: String,
    pub(crate) task_id: String,
    pub(crate) function_id: String,
    pub(crate) function_call_id: String,
    pub(crate) input_id: String,
}

/// How far one look at a container's output went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    Nothing,
    All,
    /// There is more.
    Part,
}

#[derive(Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    outputs: PathBuf,
    read: Mutex<HashMap<(String, i32), u64>>,
}

impl Logs {
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let logs = Self {
            folder: state_dir.join("logs"),
            outputs: state_dir.join("output"),
            read: Mutex::default(),
        };
        fs::create_dir_all(&logs.folder)?;
        fs::create_dir_all(&logs.outputs)?;
        let mut read = HashMap::new();
        for entry in fs::read_dir(&logs.folder)?.flatten() {
            let app_id = entry.file_name().to_string_lossy().into_owned();
            for (_, record) in logs.after(&app_id, 0) {
                read.insert((record.task_id, record.source), record.offset);
            }
        }
        *logs.read() = read;
        Ok(logs)
    }

    /// Where a container writes to.
    pub(crate) fn output(&self, task_id: &str, source: FileDescriptor) -> PathBuf {
        let kind = match source {
            FileDescriptor::Stderr => "err",
            FileDescriptor::Stdout | FileDescriptor::Info | FileDescriptor::Unspecified => "out",
        };
        self.outputs.join(format!("{task_id}.{kind}"))
    }

    /// Takes what a container has written, at most a chunk of each output. `is_last`: an open line is taken too, because nothing
    /// follows, or because it is time.
    pub(crate) fn pump(&self, origin: &Origin, now: f64, is_last: bool) -> Pumped {
        let mut read = self.read();
        let mut has_more = false;
        let mut records = Vec::new();
        for source in [FileDescriptor::Stdout, FileDescriptor::Stderr] {
            let place = read
                .entry((origin.task_id.clone(), source.into()))
                .or_default();
            let path = self.output(&origin.task_id, source);
            let Ok(Some(bytes)) = unread(&path, place) else {
                continue;
            };
            let is_full = bytes.len() as u64 == CHUNK;
            has_more |= is_full;
            for line in lines(&bytes, is_last && !is_full) {
                *place += line.len() as u64;
                records.push(LogRecord {
                    at: now,
                    task_id: origin.task_id.clone(),
                    source: source.into(),
                    function_id: origin.function_id.clone(),
                    function_call_id: origin.function_call_id.clone(),
                    input_id: origin.input_id.clone(),
                    line: String::from_utf8_lossy(line).into_owned(),
                    offset: *place,
                });
            }
            if *place > MAX_SOURCE && empty(&path, *place) {
                *place = 0;
            }
        }
        if records.is_empty() {
            return Pumped::Nothing;
        }
        if let Err(error) = self.append(&origin.app_id, &records) {
            tracing::warn!(%error, app_id = origin.app_id, "log lines are lost");
        }
        if has_more { Pumped::Part } else { Pumped::All }
    }

    /// Before the last looks at a container's output: what an app's log would not keep of it is left out, and a line says so.
    pub(crate) fn skip(&self, origin: &Origin, now: f64) {
        let mut skipped = 0;
        let mut read = self.read();
        for source in [FileDescriptor::Stdout, FileDescriptor::Stderr] {
            let Ok(metadata) = self.output(&origin.task_id, source).metadata() else {
                continue;
            };
            let place = read
                .entry((origin.task_id.clone(), source.into()))
                .or_default();
            let from = metadata.len().saturating_sub(MAX_BYTES).max(*place);
            skipped += from - *place;
            *place = from;
        }
        drop(read);
        if skipped > 0 {
            self.say(
                origin,
                now,
                &format!("[{skipped} bytes of output are left out]"),
            );
        }
    }

    /// A line of the emulator's own.
    pub(crate) fn say(&self, origin: &Origin, now: f64, text: &str) {
        let _read = self.read();
        let record = LogRecord {
            at: now,
            task_id: origin.task_id.clone(),
            source: FileDescriptor::Info.into(),
            function_id: origin.function_id.clone(),
            function_call_id: origin.function_call_id.clone(),
            input_id: origin.input_id.clone(),
            line: format!("{text}\n"),
            offset: 0,
        };
        if let Err(error) = self.append(&origin.app_id, &[record]) {
            tracing::warn!(%error, app_id = origin.app_id, "a log line is lost");
        }
    }

    /// The container has ended and all that it wrote was taken.
    pub(crate) fn close(&self, task_id: &str) {
        let mut read = self.read();
        for source in [FileDescriptor::Stdout, FileDescriptor::Stderr] {
            read.remove(&(task_id.to_owned(), source.into()));
            let _ = fs::remove_file(self.output(task_id, source));
        }
    }

    /// An app's records after a place, each with the place behind it.
    pub(crate) fn after(&self, app_id: &str, place: u64) -> Vec<(u64, LogRecord)> {
        let Ok((base, bytes)) = self.content(app_id, place) else {
            return Vec::new();
        };
        let mut rest = bytes.as_slice();
        let end = base + bytes.len() as u64;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let Ok(record) = LogRecord::decode_length_delimited(&mut rest) else {
                break;
            };
            records.push((end - rest.len() as u64, record));
        }
        records
    }

    pub(crate) fn forget(&self, app_id: &str) {
        let _ = fs::remove_file(self.folder.join(app_id));
    }

    /// Bytes from a place on, and the place where they begin. A file begins with the place of its first record: it grows when old
    /// records are cut away, so that places last.
    fn content(&self, app_id: &str, place: u64) -> io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(self.folder.join(app_id))?;
        let mut base = [0; 8];
        file.read_exact(&mut base)?;
        let base = u64::from_le_bytes(base);
        let from = place.max(base);
        file.seek(SeekFrom::Start(8 + from - base))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((from, bytes))
    }

    fn append(&self, app_id: &str, records: &[LogRecord]) -> io::Result<()> {
        let path = self.folder.join(app_id);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        let mut bytes = Vec::new();
        if size == 0 {
            bytes.extend_from_slice(&0_u64.to_le_bytes());
        }
        for record in records {
            record
                .encode_length_delimited(&mut bytes)
                .map_err(io::Error::other)?;
        }
        if let Err(error) = file.write_all(&bytes) {
            file.set_len(size)?;
            return Err(error);
        }
        if size > MAX_BYTES {
            self.cut(app_id)?;
        }
        Ok(())
    }

    fn cut(&self, app_id: &str) -> io::Result<()> {
        let (base, bytes) = self.content(app_id, 0)?;
        let middle = base + bytes.len() as u64 / 2;
        let first = self
            .after(app_id, 0)
            .into_iter()
            .map(|(place, _)| place)
            .find(|place| *place >= middle)
            .unwrap_or(base);
        let kept = &bytes[usize::try_from(first - base).unwrap_or_default()..];
        let fresh = self.folder.join(format!("{app_id}.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(&first.to_le_bytes())?;
        file.write_all(kept)?;
        fs::rename(fresh, self.folder.join(app_id))
    }

    fn read(&self) -> MutexGuard<'_, HashMap<(String, i32), u64>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file holds after a place; none: nothing new.
fn unread(path: &Path, place: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size < *place {
        // It was emptied.
        *place = 0;
    }
    if size == *place {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(*place))?;
    let mut bytes = Vec::new();
    file.take(CHUNK).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whole lines with their ends, and what is left if it is time or too long.
fn lines(bytes: &[u8], is_last: bool) -> impl Iterator<Item = &[u8]> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter(move |line| is_last || line.ends_with(b"\n") || line.len() > MAX_LINE)
}

/// Empties a file if nothing has come since it was read up to here.
fn empty(path: &Path, place: u64) -> bool {
    let Ok(file) = OpenOptions::new().append(true).open(path) else {
        return false;
    };
    file.metadata()
        .is_ok_and(|metadata| metadata.len() == place)
        && file.set_len(0).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use modal_api::wire::FileDescriptor;

    use super::{CHUNK, LAST_LOOKS, Logs, MAX_BYTES, Origin, Pumped};

    fn origin() -> Origin {
        Origin {
            app_id: "ap-1".into(),
            task_id: "ta-1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn lines_are_taken_once_also_across_a_restart() {
        let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
        let logs = Logs::open(folder.path()).unwrap();
        let path = logs.output("ta-1", FileDescriptor::Stdout);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        write!(file, "one\ntwo\nthr").unwrap();
        assert_eq!(logs.pump(&origin, 1.0, false), Pumped::All);
        assert_eq!(logs.pump(&origin, 2.0, false), Pumped::Nothing);
        drop(logs);
        let logs = Logs::open(folder.path()).unwrap();
        write!(file, "ee").unwrap();
        assert_eq!(logs.pump(&origin, 3.0, true), Pumped::All);
        let records = logs.after("ap-1", 0);
        let told: Vec<_> = records
            .iter()
            .map(|(_, record)| (record.at, record.line.as_str()))
            .collect();
        assert_eq!(told, [(1.0, "one\n"), (1.0, "two\n"), (3.0, "three")]);
        assert_eq!(logs.after("ap-1", records[1].0).len(), 1);
        logs.cut("ap-1").unwrap();
        assert_eq!(logs.after("ap-1", 0).len(), 1);
        assert_eq!(logs.after("ap-1", records[1].0).len(), 1);
        assert_eq!(logs.after("ap-1", records[2].0).len(), 0);
        logs.close("ta-1");
        assert!(!path.exists());
    }

    #[test]
    fn a_long_output_is_taken_to_its_end_and_lines_stay_whole() {
        let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
        let logs = Logs::open(folder.path()).unwrap();
        let path = logs.output("ta-1", FileDescriptor::Stderr);
        // Lines do not end where chunks do.
        let count = 2 * usize::try_from(CHUNK).unwrap() / 1000;
        let text = format!("{}\n", "x".repeat(1000)).repeat(count);
        fs::write(&path, format!("{text}ValueError: the end")).unwrap();
        let rounds: Vec<_> = (0..4).map(|_| logs.pump(&origin, 1.0, true)).collect();
        assert_eq!(
            rounds,
            [Pumped::Part, Pumped::Part, Pumped::All, Pumped::Nothing]
        );
        let records = logs.after("ap-1", 0);
        let last = &records.last().unwrap().1;
        assert_eq!(
            (records.len(), last.line.as_str()),
            (count + 1, "ValueError: the end")
        );
    }

    #[test]
    fn the_last_words_of_a_container_that_wrote_too_much_are_taken() {
        let (folder, origin) = (tempfile::tempdir().unwrap(), origin());
        let logs = Logs::open(folder.path()).unwrap();
        let mut file = fs::File::create(logs.output("ta-1", FileDescriptor::Stderr)).unwrap();
        let line = format!("{}\n", "x".repeat(60_000));
        let count = usize::try_from(MAX_BYTES).unwrap() / line.len() + 100;
        file.write_all(line.repeat(count).as_bytes()).unwrap();
        file.write_all(b"ValueError: the end").unwrap();
        logs.skip(&origin, 1.0);
        let said = logs.after("ap-1", 0);
        let skipped = file.metadata().unwrap().len() - MAX_BYTES;
        assert_eq!(
            said[0].1.line,
            format!("[{skipped} bytes of output are left out]\n")
        );
        let rounds: Vec<_> = (0..LAST_LOOKS)
            .map(|_| logs.pump(&origin, 1.0, true))
            .collect();
        assert!(!rounds.last().unwrap().eq(&Pumped::Part), "{rounds:?}");
        let records = logs.after("ap-1", 0);
        assert_eq!(records.last().unwrap().1.line, "ValueError: the end");
    }
}

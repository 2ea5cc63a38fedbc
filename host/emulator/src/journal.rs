//! The append-only file behind the state: one `write(2)` a record, before the answer that depends on it.
//!
//! A record is its length, the CRC of its bytes, and the bytes. What a crash cut off in the middle is cut away at the next start. The file
//! is not synced for each record: it survives the death of the process, not a power failure of the machine. It is rewritten from
//! the state at the start and when it has outgrown the state.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use prost::Message;

use crate::record::{Event, Record};

const MAGIC: &[u8] = b"modalflow emulator journal 1\n";
const HEADER: usize = 8;
const LEAST_GROWTH: u64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// The length right after the last rewriting.
    compact_length: u64,
    /// Half a record could not be taken back: nothing may be written behind it.
    broken: bool,
}

/// What an earlier life left.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    /// Bytes at the end that are no whole record.
    pub(crate) torn_bytes: u64,
}

/// Reads all whole records of the file; a missing file is an empty history.
pub(crate) fn read(path: &Path) -> io::Result<History> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => return Err(error),
    };
    if bytes.is_empty() {
        return Ok(History::default());
    }
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a journal of this version",
        ));
    };
    let mut events = Vec::new();
    while let Some((event, tail)) = split_record(rest) {
        events.extend(event);
        rest = tail;
    }
    Ok(History {
        events,
        torn_bytes: rest.len() as u64,
    })
}

/// The first record's event (none: of a kind that this version does not know) and the bytes after it.
fn split_record(bytes: &[u8]) -> Option<(Option<Event>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..u32::from_le_bytes(*length) as usize)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let record = Record::decode(body).ok()?;
    Some((record.event, &rest[body.len()..]))
}

impl Journal {
    /// Writes a fresh file with these events in the place of the old one.
    pub(crate) fn create(path: &Path, events: impl Iterator<Item = Event>) -> io::Result<Self> {
        let fresh = path.with_extension("new");
        // Arguments may hold what others must not read.
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        let mut writer = BufWriter::new(file);
        let mut length = MAGIC.len() as u64;
        let mut buffer = Vec::new();
        writer.write_all(MAGIC)?;
        for event in events {
            encode(event, &mut buffer)?;
            writer.write_all(&buffer)?;
            length += buffer.len() as u64;
        }
        writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&fresh, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            compact_length: length,
            broken: false,
        })
    }

    pub(crate) fn append(&mut self, event: Event) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "the journal ends in half a record that could not be taken back",
            ));
        }
        let mut buffer = Vec::with_capacity(512);
        encode(event, &mut buffer)?;
        if let Err(error) = self.file.write_all(&buffer) {
            // Half a record would hide all later ones.
            self.broken = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += buffer.len() as u64;
        Ok(())
    }

    pub(crate) fn has_outgrown_its_state(&self) -> bool {
        self.length > self.compact_length.saturating_mul(2).max(LEAST_GROWTH)
    }

    pub(crate) fn rewrite(&mut self, events: impl Iterator<Item = Event>) -> io::Result<()> {
        *self = Self::create(&self.path, events)?;
        Ok(())
    }
}

fn encode(event: Event, buffer: &mut Vec<u8>) -> io::Result<()> {
    let record = Record { event: Some(event) };
    let length = u32::try_from(record.encoded_len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "record over 4 GiB"))?;
    buffer.clear();
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    record.encode(buffer).map_err(io::Error::other)?;
    let crc = crc32fast::hash(&buffer[HEADER..]);
    buffer[4..HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Journal, read};
    use crate::record::{ContainerEnded, Event};

    fn event(task_id: &str) -> Event {
        Event::ContainerEnded(ContainerEnded {
            task_id: task_id.to_owned(),
        })
    }

    /// Three records, then whatever the case does to the file's bytes.
    fn after(damage: impl FnOnce(&mut Vec<u8>)) -> (usize, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, [event("ta-1")].into_iter()).unwrap();
        journal.append(event("ta-2")).unwrap();
        journal.append(event("ta-3")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let history = read(&path).unwrap();
        (history.events.len(), history.torn_bytes)
    }

    #[test]
    fn whole_records_are_read_back() {
        assert_eq!(after(|_| ()), (3, 0));
    }

    #[test]
    fn a_record_cut_anywhere_costs_only_itself() {
        for cut in 1..16 {
            let (events, torn) = after(|bytes| bytes.truncate(bytes.len() - cut));
            assert_eq!((events, torn), (2, 16 - cut as u64), "{cut} bytes cut");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        assert_eq!(after(|bytes| *bytes.last_mut().unwrap() ^= 1).0, 2);
    }

    #[test]
    fn a_foreign_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, "something else").unwrap();
        assert!(read(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"something else");
    }
}

//! A directory as an object store: what `object-store` does, without a word of wasm.
//!
//! The directory may hold anything that a task planted there. Paths are checked part by part before a file is looked at, each
//! part is opened relative to the one before it, and a symbolic link is never followed. Everything here blocks.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, MetadataExt, OpenOptions, OpenOptionsExt};

use crate::payload::{CHUNK, Payload, Spool};
use crate::task::is_plain;
use crate::{INLINE_BYTES, StoreGrant};

/// How deep a planted tree is followed when it is removed.
const DEEPEST: usize = 32;
/// Part of a name that no encoded id can have; see `path_part`.
const UNFINISHED: &str = "%tmp-";
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Directory {
    root: Arc<Dir>,
    write: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    NotFound(String),
    Denied(String),
    Invalid(String),
    Conflict(String),
    Unavailable(String),
    Failed(String),
}

pub(crate) struct Meta {
    pub(crate) size: u64,
    /// Microseconds since 1970.
    pub(crate) modified: i64,
}

pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
}

impl Directory {
    pub(crate) fn open(grant: &StoreGrant, may_write: bool) -> io::Result<Directory> {
        let write = grant.write && may_write;
        if write {
            std::fs::create_dir_all(&grant.dir)?;
        }
        let root = Dir::open_ambient_dir(&grant.dir, ambient_authority())?;
        Ok(Directory {
            root: Arc::new(root),
            write,
        })
    }

    pub(crate) fn head(&self, path: &str) -> Result<Meta, StoreError> {
        let file = self.open_object(path)?;
        meta(&file).map_err(|error| explain(path, &error))
    }

    pub(crate) fn get(
        &self,
        path: &str,
        start: u64,
        len: Option<u64>,
    ) -> Result<(Meta, Payload), StoreError> {
        let file = self.open_object(path)?;
        let meta = meta(&file).map_err(|error| explain(path, &error))?;
        let start = start.min(meta.size);
        let len = len.unwrap_or(u64::MAX).min(meta.size - start);
        let payload = Payload::Spooled(Spool::of_file(file.into_std(), start, len));
        if len > INLINE_BYTES as u64 {
            return Ok((meta, payload));
        }
        let bytes = payload
            .read_at(0, INLINE_BYTES)
            .map_err(|error| explain(path, &error))?;
        Ok((meta, Payload::Inline(bytes)))
    }

    /// Writes a temporary file beside the object, makes it durable, and renames it.
    pub(crate) fn put(&self, path: &str, data: &Payload) -> Result<Meta, StoreError> {
        self.may_write()?;
        let parts = parts(path)?;
        // Somebody may prune an empty directory between our making it and our using it.
        for _ in 0..3 {
            match self.put_once(&parts, data) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done.map_err(|error| self.explain_at(&parts, path, &error)),
            }
        }
        Err(StoreError::Unavailable(format!(
            "`{path}`: its directory keeps disappearing"
        )))
    }

    fn put_once(&self, parts: &[&str], data: &Payload) -> io::Result<Meta> {
        let (directory, name) = self.parent(parts, true)?;
        let unfinished = format!("{UNFINISHED}{:016x}", rand::random::<u64>());
        let written = write_new(&directory, &unfinished, data).and_then(|meta| {
            directory.rename(&unfinished, &directory, name)?;
            sync(&directory)?;
            Ok(meta)
        });
        if written.is_err() {
            // The first error is the one to tell; a leftover is never listed and goes with its directory.
            let _ = directory.remove_file(&unfinished);
        }
        written
    }

    /// Adds to the end; see `append` in `wit/host.wit` for what is idempotent.
    pub(crate) fn append(
        &self,
        path: &str,
        offset: u64,
        data: &Payload,
    ) -> Result<u64, StoreError> {
        self.may_write()?;
        let parts = parts(path)?;
        let fail = |error: io::Error| self.explain_at(&parts, path, &error);
        let (directory, name) = self.parent(&parts, true).map_err(fail)?;
        let file = open_file(
            &directory,
            name,
            OpenOptions::new().read(true).write(true).create(true),
        )
        .map_err(fail)?;
        let seen = file.metadata().map_err(fail)?;
        if !seen.is_file() || seen.nlink() != 1 {
            return Err(StoreError::Denied(format!(
                "`{path}` is not a plain file with one name; nothing was written"
            )));
        }
        let file = file.into_std();
        lock(&file, path)?;
        let len = file.metadata().map_err(fail)?.len();
        let known = overlap(&file, len, offset, data).map_err(fail)?;
        let known = known.ok_or_else(|| {
            StoreError::Conflict(match offset > len {
                true => format!("`{path}` is {len} bytes long, so nothing belongs at {offset}"),
                false => format!("`{path}` has other bytes at {offset}; it is {len} bytes long"),
            })
        })?;
        match write_rest(&file, len, known, data) {
            Ok(len) => Ok(len),
            Err(error) => {
                // Half a batch would look like a conflict when it is sent again.
                let _ = file.set_len(len);
                Err(fail(error))
            }
        }
    }

    pub(crate) fn delete(&self, path: &str) -> Result<bool, StoreError> {
        self.may_write()?;
        let parts = parts(path)?;
        let removed = self.parent(&parts, false).and_then(|(directory, name)| {
            if directory.symlink_metadata(name)?.is_dir() {
                return Ok(false);
            }
            directory.remove_file(name)?;
            Ok(true)
        });
        match removed {
            Ok(removed) => {
                self.prune(&parts[..parts.len() - 1]);
                Ok(removed)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.explain_at(&parts, path, &error)),
        }
    }

    /// Removes an object, or everything below a prefix; counts objects.
    pub(crate) fn delete_all(&self, prefix: &str) -> Result<u64, StoreError> {
        self.may_write()?;
        let parts = parts(prefix)?;
        let removed = self
            .parent(&parts, false)
            .and_then(|(directory, name)| remove_tree(&directory, name, DEEPEST));
        match removed {
            Ok(removed) => {
                self.prune(&parts[..parts.len() - 1]);
                Ok(removed)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(self.explain_at(&parts, prefix, &error)),
        }
    }

    /// Names directly below, sorted; at most `max` after `after`, and whether there are more.
    pub(crate) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        let parts = if prefix.is_empty() {
            Vec::new()
        } else {
            parts(prefix)?
        };
        let fail = |error: io::Error| self.explain_at(&parts, prefix, &error);
        let directory = match self.walk(&parts, false) {
            Ok(directory) => directory,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), false)),
            Err(error) => return Err(fail(error)),
        };
        let mut names = Vec::new();
        for entry in directory.entries().map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            // What nobody could have put here through us is not an object.
            let Some(name) = name.to_str().filter(|name| check_part(name).is_ok()) else {
                continue;
            };
            if after.is_none_or(|after| name > after) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        let more = names.len() > max;
        names.truncate(max);
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            match directory.symlink_metadata(&name) {
                Ok(found) if found.is_file() => entries.push(Entry {
                    name,
                    size: Some(found.len()),
                }),
                Ok(found) if found.is_dir() => entries.push(Entry { name, size: None }),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Ok((entries, more))
    }

    fn may_write(&self) -> Result<(), StoreError> {
        if self.write {
            return Ok(());
        }
        Err(StoreError::Denied("the store may only be read".to_owned()))
    }

    fn open_object(&self, path: &str) -> Result<File, StoreError> {
        let parts = parts(path)?;
        let opened = self.parent(&parts, false).and_then(|(directory, name)| {
            open_file(&directory, name, OpenOptions::new().read(true))
        });
        let file = opened.map_err(|error| self.explain_at(&parts, path, &error))?;
        match file.metadata() {
            Ok(found) if found.is_file() => Ok(file),
            Ok(found) if found.is_dir() => Err(StoreError::NotFound(format!("`{path}`"))),
            Ok(_) => Err(StoreError::Denied(format!("`{path}` is not a plain file"))),
            Err(error) => Err(explain(path, &error)),
        }
    }

    fn parent<'p>(&self, parts: &[&'p str], create: bool) -> io::Result<(Dir, &'p str)> {
        let (name, above) = parts.split_last().ok_or(ErrorKind::InvalidInput)?;
        Ok((self.walk(above, create)?, name))
    }

    fn walk(&self, parts: &[&str], create: bool) -> io::Result<Dir> {
        let mut directory = self.root.try_clone()?;
        for part in parts {
            directory = match directory.open_dir_nofollow(part) {
                Err(error) if create && error.kind() == ErrorKind::NotFound => {
                    match directory.create_dir(part) {
                        Ok(()) => sync(&directory)?,
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(error),
                    }
                    directory.open_dir_nofollow(part)?
                }
                opened => opened?,
            };
        }
        Ok(directory)
    }

    /// Removes directories that became empty; object stores have none.
    fn prune(&self, parts: &[&str]) {
        for end in (1..=parts.len()).rev() {
            let Ok((directory, name)) = self.parent(&parts[..end], false) else {
                return;
            };
            if directory.remove_dir(name).is_err() {
                return;
            }
        }
    }

    /// Says what is in the way when a path cannot be opened.
    fn explain_at(&self, parts: &[&str], path: &str, error: &io::Error) -> StoreError {
        for end in 1..=parts.len() {
            let Ok((directory, name)) = self.parent(&parts[..end], false) else {
                break;
            };
            let Ok(found) = directory.symlink_metadata(name) else {
                break;
            };
            if found.is_symlink() {
                tracing::warn!(path, "refused to follow a symbolic link in a store");
                return StoreError::Denied(format!(
                    "`{}` is a symbolic link, which is never followed",
                    parts[..end].join("/")
                ));
            }
            if end < parts.len() && !found.is_dir() {
                return StoreError::Invalid(format!(
                    "`{}` is an object, nothing can be below it",
                    parts[..end].join("/")
                ));
            }
        }
        explain(path, error)
    }
}

/// Splits a path and refuses every part that our encoder could not have made.
fn parts(path: &str) -> Result<Vec<&str>, StoreError> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > DEEPEST {
        return Err(StoreError::Invalid(format!(
            "a path of more than {DEEPEST} parts"
        )));
    }
    for part in &parts {
        check_part(part).map_err(|why| {
            let shown: String = path.chars().take(200).collect();
            StoreError::Invalid(format!("the path {shown:?}: {why}"))
        })?;
    }
    Ok(parts)
}

fn check_part(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("a part is empty");
    }
    if part == "." || part == ".." {
        return Err("`.` and `..` are no parts of a path");
    }
    if part.len() > 255 {
        return Err("a part is longer than 255 bytes");
    }
    if part.contains(UNFINISHED) {
        return Err("a part has the mark of an unfinished file");
    }
    if !part.bytes().all(|byte| is_plain(byte) || byte == b'%') {
        return Err("a part has characters that must be encoded (object-store.part)");
    }
    Ok(())
}

fn open_file(directory: &Dir, name: &str, options: &mut OpenOptions) -> io::Result<File> {
    // Without O_NONBLOCK a planted FIFO would hold us for ever.
    const O_NONBLOCK: i32 = 0o4000;
    options.follow(FollowSymlinks::No).custom_flags(O_NONBLOCK);
    directory.open_with(name, options)
}

fn write_new(directory: &Dir, name: &str, data: &Payload) -> io::Result<Meta> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    let file = directory.open_with(name, &options)?.into_std();
    let mut offset = 0;
    while offset < data.len() {
        let piece = data.read_at(offset, CHUNK)?;
        file.write_all_at(&piece, offset)?;
        offset += piece.len() as u64;
    }
    file.sync_all()?;
    meta(&File::from_std(file))
}

/// How many bytes of `data` the file has already; none when they cannot belong at `offset`.
fn overlap(file: &std::fs::File, len: u64, offset: u64, data: &Payload) -> io::Result<Option<u64>> {
    if offset > len {
        return Ok(None);
    }
    let known = data.len().min(len - offset);
    let mut at = 0;
    while at < known {
        let take = usize::try_from(known - at).unwrap_or(CHUNK).min(CHUNK);
        let mut there = vec![0; take];
        file.read_exact_at(&mut there, offset + at)?;
        if data.read_at(at, take)? != there {
            return Ok(None);
        }
        at += take as u64;
    }
    Ok(Some(known))
}

fn write_rest(file: &std::fs::File, len: u64, known: u64, data: &Payload) -> io::Result<u64> {
    let mut at = known;
    let mut end = len;
    while at < data.len() {
        let piece = data.read_at(at, CHUNK)?;
        file.write_all_at(&piece, end)?;
        at += piece.len() as u64;
        end += piece.len() as u64;
    }
    Ok(end)
}

/// Two hosts may append to one log; a task that holds the lock must not hold us.
fn lock(file: &std::fs::File, path: &str) -> Result<(), StoreError> {
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) if started.elapsed() < LONGEST_WAIT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::Unavailable(format!(
                    "`{path}` is locked by another process"
                )));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(explain(path, &error)),
        }
    }
}

fn remove_tree(directory: &Dir, name: &str, depth: usize) -> io::Result<u64> {
    let found = directory.symlink_metadata(name)?;
    if !found.is_dir() {
        directory.remove_file(name)?;
        let object = found.is_file() && !name.contains(UNFINISHED);
        return Ok(u64::from(object));
    }
    if depth == 0 {
        return Err(io::Error::other(
            "directories are nested too deep to be ours",
        ));
    }
    let below = directory.open_dir_nofollow(name)?;
    let mut removed = 0;
    for entry in below.entries()? {
        let entry = entry?.file_name();
        let Some(entry) = entry.to_str() else {
            let path: PathBuf = entry.into();
            return Err(io::Error::other(format!("{path:?} is not a name of ours")));
        };
        removed += remove_tree(&below, entry, depth - 1)?;
    }
    directory.remove_dir(name)?;
    Ok(removed)
}

fn meta(file: &File) -> io::Result<Meta> {
    let found = file.metadata()?;
    let modified = found.modified().map_or(UNIX_EPOCH, |time| time.into_std());
    Ok(Meta {
        size: found.len(),
        modified: microseconds(modified),
    })
}

pub(crate) fn microseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn sync(directory: &Dir) -> io::Result<()> {
    directory.open(".")?.sync_all()
}

fn explain(path: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::NotFound => StoreError::NotFound(format!("`{path}`")),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StoreError::Failed(format!("`{path}`: no space is left in the store ({error})"))
        }
        ErrorKind::ReadOnlyFilesystem => {
            StoreError::Failed(format!("`{path}`: the store's file system is read-only"))
        }
        _ => StoreError::Failed(format!("`{path}`: {error}")),
    }
}

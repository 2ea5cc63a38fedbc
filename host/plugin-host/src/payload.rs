//! Bytes of a value: small ones in memory, large ones in an unnamed file.
//!
//! A clone shares the bytes. Nothing here reads a whole spooled value into memory unless `into_bytes` is asked to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::task::JoinHandle;

use crate::Error;

/// Up to this size values stay in memory and are copied into a plugin in one piece.
pub const INLINE_BYTES: usize = 256 << 10;

/// How much is moved at a time between files.
pub(crate) const CHUNK: usize = 256 << 10;

#[derive(Clone, Debug)]
pub enum Payload {
    Inline(Bytes),
    Spooled(Spool),
}

/// A range of an open file that nobody writes any more.
#[derive(Clone, Debug)]
pub struct Spool {
    file: Arc<File>,
    start: u64,
    len: u64,
    sha256: Arc<OnceLock<String>>,
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Payload::Inline(bytes.into())
    }
}

impl Payload {
    /// Takes everything `reader` has, at most `max` bytes; more than [`INLINE_BYTES`] goes into an unnamed file in `spool_dir`.
    pub async fn spool(
        spool_dir: &Path,
        mut reader: impl AsyncRead + Unpin + Send,
        max: u64,
    ) -> Result<Payload, Error> {
        let mut spooler = Spooler::new(spool_dir);
        let mut chunk = BytesMut::with_capacity(CHUNK);
        loop {
            chunk.clear();
            let read = reader.read_buf(&mut chunk).await.map_err(Error::Payload)?;
            if read == 0 {
                return Ok(spooler.finish());
            }
            if spooler.len() + read as u64 > max {
                return Err(Error::PayloadTooLarge { limit: max });
            }
            spooler = spooler.write_elsewhere(chunk.split().freeze()).await?;
            chunk.reserve(CHUNK);
        }
    }

    pub fn len(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Spooled(spool) => spool.len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes in memory; an error when there are more than `max`.
    pub async fn into_bytes(self, max: u64) -> Result<Bytes, Error> {
        if self.len() > max {
            return Err(Error::PayloadTooLarge { limit: max });
        }
        match self {
            Payload::Inline(bytes) => Ok(bytes),
            Payload::Spooled(spool) => {
                blocking(move || {
                    let mut all = vec![0; usize::try_from(spool.len).map_err(io::Error::other)?];
                    spool.file.read_exact_at(&mut all, spool.start)?;
                    Ok(Bytes::from(all))
                })
                .await
            }
        }
    }

    /// Reads from the start, independently of other readers.
    pub fn reader(&self) -> PayloadReader {
        PayloadReader {
            payload: self.clone(),
            position: 0,
            buffered: Bytes::new(),
            pending: None,
        }
    }

    /// Up to `max` bytes at `offset`; none at the end. Blocks on a spooled value.
    pub(crate) fn read_at(&self, offset: u64, max: usize) -> io::Result<Bytes> {
        let left = self.len().saturating_sub(offset);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        match self {
            Payload::Inline(bytes) => {
                let start = bytes
                    .len()
                    .min(usize::try_from(offset).unwrap_or(usize::MAX));
                Ok(bytes.slice(start..start + take))
            }
            Payload::Spooled(spool) => {
                let mut buffer = vec![0; take];
                spool
                    .file
                    .read_exact_at(&mut buffer, spool.start + offset)
                    .map_err(shortened)?;
                Ok(Bytes::from(buffer))
            }
        }
    }

    /// The SHA-256 of all bytes in hexadecimal. Reads a spooled value once; a clone knows the answer too.
    pub(crate) fn sha256(&self) -> io::Result<String> {
        let known = match self {
            Payload::Inline(bytes) => return Ok(hex::encode(Sha256::digest(bytes))),
            Payload::Spooled(spool) => &spool.sha256,
        };
        if let Some(known) = known.get() {
            return Ok(known.clone());
        }
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < self.len() {
            let piece = self.read_at(offset, CHUNK)?;
            hasher.update(&piece);
            offset += piece.len() as u64;
        }
        let digest = hex::encode(hasher.finalize());
        Ok(known.get_or_init(|| digest).clone())
    }
}

impl Spool {
    /// A part of a file that was opened for reading.
    pub(crate) fn of_file(file: File, start: u64, len: u64) -> Spool {
        Spool {
            file: Arc::new(file),
            start,
            len,
            sha256: Arc::default(),
        }
    }
}

/// Collects bytes, first in memory, then in a file.
pub(crate) struct Spooler {
    dir: std::path::PathBuf,
    memory: BytesMut,
    file: Option<File>,
    len: u64,
    hasher: Sha256,
}

impl Spooler {
    pub(crate) fn new(dir: &Path) -> Spooler {
        Spooler {
            dir: dir.to_owned(),
            memory: BytesMut::new(),
            file: None,
            len: 0,
            hasher: Sha256::new(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes; blocks once they no longer fit into memory.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        use std::io::Write as _;
        self.len += bytes.len() as u64;
        if self.file.is_none() && self.len <= INLINE_BYTES as u64 {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = tempfile::tempfile_in(&self.dir)?;
                self.hasher.update(&self.memory);
                file.write_all(&self.memory)?;
                self.memory = BytesMut::new();
                self.file.insert(file)
            }
        };
        self.hasher.update(bytes);
        file.write_all(bytes)
    }

    async fn write_elsewhere(mut self, bytes: Bytes) -> Result<Spooler, Error> {
        if self.file.is_none() && self.len + bytes.len() as u64 <= INLINE_BYTES as u64 {
            self.write(&bytes).map_err(Error::Payload)?;
            return Ok(self);
        }
        blocking(move || {
            self.write(&bytes)?;
            Ok(self)
        })
        .await
    }

    pub(crate) fn finish(self) -> Payload {
        let Some(file) = self.file else {
            return Payload::Inline(self.memory.freeze());
        };
        let spool = Spool::of_file(file, 0, self.len);
        let _ = spool.sha256.set(hex::encode(self.hasher.finalize()));
        Payload::Spooled(spool)
    }
}

/// Reads a [`Payload`] piece by piece.
pub struct PayloadReader {
    payload: Payload,
    position: u64,
    buffered: Bytes,
    pending: Option<JoinHandle<io::Result<Bytes>>>,
}

impl AsyncRead for PayloadReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.buffered.is_empty() && self.position < self.payload.len() {
            let position = self.position;
            let piece = match &self.payload {
                Payload::Inline(_) => self.payload.read_at(position, usize::MAX)?,
                Payload::Spooled(_) => {
                    let payload = self.payload.clone();
                    let pending = self.pending.get_or_insert_with(|| {
                        tokio::task::spawn_blocking(move || payload.read_at(position, CHUNK))
                    });
                    let read = ready!(Pin::new(pending).poll(context));
                    self.pending = None;
                    read.map_err(io::Error::other)??
                }
            };
            self.position += piece.len() as u64;
            self.buffered = piece;
        }
        let take = self.buffered.len().min(buffer.remaining());
        buffer.put_slice(&self.buffered.split_to(take));
        Poll::Ready(Ok(()))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(Error::Payload)
}

fn shortened(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::other("the file became shorter while it was read");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_come_back_from_memory_and_from_files() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 3 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let payload = Payload::spool(dir.path(), &bytes[..], u64::MAX)
                .await
                .unwrap();
            assert_eq!(matches!(payload, Payload::Inline(_)), len <= INLINE_BYTES);
            assert_eq!(
                payload.sha256().unwrap(),
                hex::encode(Sha256::digest(&bytes))
            );
            let mut read = Vec::new();
            payload.reader().read_to_end(&mut read).await.unwrap();
            assert_eq!(read, bytes);
            assert_eq!(payload.into_bytes(len as u64).await.unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_value_over_the_limit_is_refused_while_it_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let error = Payload::spool(dir.path(), tokio::io::repeat(1), 1 << 20)
            .await
            .unwrap_err();
        insta::assert_snapshot!(error, @"the value is larger than 1048576 bytes");
        let error = Payload::from(vec![0; 11]).into_bytes(10).await.unwrap_err();
        insta::assert_snapshot!(error, @"the value is larger than 10 bytes");
    }
}

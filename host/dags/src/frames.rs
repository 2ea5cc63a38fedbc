//! Frames over a private socket to one of our Python processes, which gets the other end as its stdin.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// More than a whole batch of DAGs needs; a length beyond it means that we lost step.
const FRAME_BYTES: u32 = 1 << 30;

/// Our end, and the end for the child's stdin.
pub(crate) fn pair() -> std::io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
}

/// `!II` header and body: the parser's form.
pub(crate) async fn send_parser(
    link: &mut UnixStream,
    header: &impl Serialize,
) -> std::io::Result<()> {
    let header = serde_json::to_vec(header)?;
    let mut frame = Vec::with_capacity(header.len() + 8);
    frame.extend(length(header.len())?.to_be_bytes());
    frame.extend(0_u32.to_be_bytes());
    frame.extend(header);
    link.write_all(&frame).await
}

/// The parser's header and, unread, what a child wrote.
pub(crate) async fn receive_parser(link: &mut UnixStream) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let header = link.read_u32().await?;
    let body = link.read_u32().await?;
    Ok((read(link, header).await?, read(link, body).await?))
}

/// `!I` and JSON: the form of the process that writes.
pub(crate) async fn send_json(
    link: &mut UnixStream,
    message: &impl Serialize,
) -> std::io::Result<()> {
    let message = serde_json::to_vec(message)?;
    link.write_u32(length(message.len())?).await?;
    link.write_all(&message).await
}

pub(crate) async fn receive_json(link: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let size = link.read_u32().await?;
    read(link, size).await
}

async fn read(link: &mut UnixStream, size: u32) -> std::io::Result<Vec<u8>> {
    if size > FRAME_BYTES {
        return Err(std::io::Error::other("a frame that is too long"));
    }
    let mut bytes = vec![0; size as usize];
    link.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn length(size: usize) -> std::io::Result<u32> {
    u32::try_from(size)
        .ok()
        .filter(|&size| size <= FRAME_BYTES)
        .ok_or_else(|| std::io::Error::other("a frame that is too long"))
}

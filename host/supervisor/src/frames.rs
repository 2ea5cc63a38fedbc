//! The frames between a task runner and its supervisor: a length, then a MessagePack array `[id, body, …]`.
//! Bodies leave and arrive as JSON; nothing here knows what they mean.

use std::{
    io::IoSlice,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

use crate::msgpack;

/// What the runner asked.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    Message {
        id: u64,
        body: Vec<u8>,
        trace: Option<String>,
    },
    /// The frame was read past, not kept.
    TooLarge { id: u64, size: u64, limit: u64 },
    /// The frame is no message; the runner waits for an answer nevertheless.
    Unreadable { id: u64, reason: String },
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Done, and nothing to say.
    Nothing,
    Body(Value),
    /// A body that is MessagePack already.
    Packed(Vec<u8>),
    Error(Value),
    /// A socket for log lines travels beside the frame.
    LogSocket(OwnedFd),
}

/// The supervisor's end of the runner's request socket.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: UnixStream,
    buffer: Vec<u8>,
    largest: u64,
    /// Bytes of a frame that is too large, still to be read past.
    skip: u64,
}

const LENGTH: usize = 4;
/// Enough for the head of a frame: the array's and the id.
const HEAD: usize = LENGTH + 10;

impl Frames {
    pub(crate) fn new(stream: UnixStream, largest: u64) -> Self {
        Self {
            stream,
            buffer: Vec::with_capacity(4096),
            largest,
            skip: 0,
        }
    }

    /// The next request; `None` at the end. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Request>> {
        loop {
            if let Some(request) = self.take() {
                return Ok(Some(request));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// A request that has arrived already: what a runner said before it died is still in the socket.
    pub(crate) fn leftover(&mut self) -> Option<Request> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(request) = self.take() {
                return Some(request);
            }
            match recv(self.stream.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(_) => return None,
                Ok(size) => self.buffer.extend_from_slice(&chunk[..size]),
            }
        }
    }

    /// Answers a request. A runner that is gone is no error: its end is learnt elsewhere.
    pub(crate) async fn reply(&mut self, id: u64, reply: Reply) -> std::io::Result<()> {
        let mut frame = vec![0; LENGTH];
        frame.push(match reply {
            Reply::Nothing => 0x91,
            Reply::Body(_) | Reply::Packed(_) | Reply::LogSocket(_) => 0x92,
            Reply::Error(_) => 0x93,
        });
        msgpack::put_unsigned(&mut frame, id);
        let mut beside = None;
        match reply {
            Reply::Nothing => {}
            Reply::Body(body) => {
                msgpack::from_json(&body, &mut frame).map_err(std::io::Error::other)?
            }
            Reply::Packed(body) => frame.extend_from_slice(&body),
            Reply::Error(error) => {
                frame.push(0xc0);
                msgpack::from_json(&error, &mut frame).map_err(std::io::Error::other)?;
            }
            Reply::LogSocket(socket) => {
                let body = serde_json::json!({"type": "SentFDs", "fds": [socket.as_raw_fd()]});
                msgpack::from_json(&body, &mut frame).map_err(std::io::Error::other)?;
                beside = Some(socket);
            }
        }
        let size = u32::try_from(frame.len() - LENGTH).map_err(std::io::Error::other)?;
        frame[..LENGTH].copy_from_slice(&size.to_be_bytes());
        match beside {
            None => self.stream.write_all(&frame).await,
            Some(socket) => self.send_beside(&frame, &socket).await,
        }
    }

    async fn send_beside(&mut self, frame: &[u8], socket: &OwnedFd) -> std::io::Result<()> {
        let fds = [socket.as_raw_fd()];
        let content = [IoSlice::new(frame)];
        let sent = self
            .stream
            .async_io(Interest::WRITABLE, || {
                sendmsg::<()>(
                    self.stream.as_raw_fd(),
                    &content,
                    &[ControlMessage::ScmRights(&fds)],
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                )
                .map_err(std::io::Error::from)
            })
            .await?;
        self.stream.write_all(&frame[sent..]).await
    }

    /// Takes a whole frame off the buffer.
    fn take(&mut self) -> Option<Request> {
        if self.skip > 0 {
            let here = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            self.buffer.drain(..here);
            self.skip -= here as u64;
            if self.skip > 0 {
                return None;
            }
        }
        let length: [u8; LENGTH] = self.buffer.get(..LENGTH)?.try_into().ok()?;
        let size = u64::from(u32::from_be_bytes(length));
        if size > self.largest {
            if self.buffer.len() < HEAD {
                return None;
            }
            let mut head = &self.buffer[LENGTH..HEAD];
            let id = msgpack::take_array_length(&mut head)
                .and_then(|_| msgpack::take_unsigned(&mut head))
                .unwrap_or_default();
            self.skip = LENGTH as u64 + size;
            let limit = self.largest;
            return Some(Request::TooLarge { id, size, limit });
        }
        let end = LENGTH + usize::try_from(size).ok()?;
        if self.buffer.len() < end {
            self.buffer.reserve(end - self.buffer.len());
            return None;
        }
        let request = read(&self.buffer[LENGTH..end]);
        if end == self.buffer.len() && end > 1 << 20 {
            // A large value's memory is given back.
            self.buffer = Vec::with_capacity(4096);
        } else {
            self.buffer.drain(..end);
        }
        Some(request)
    }
}

fn read(mut frame: &[u8]) -> Request {
    let mut id = 0;
    let mut body = Vec::with_capacity(frame.len() + frame.len() / 8);
    let parts = msgpack::take_array_length(&mut frame)
        .and_then(|parts| msgpack::take_unsigned(&mut frame).map(|taken| (parts, taken)))
        .and_then(|(parts, taken)| {
            id = taken;
            msgpack::to_json(&mut frame, &mut body)?;
            let mut trace = Vec::new();
            if parts > 2 {
                msgpack::to_json(&mut frame, &mut trace)?;
            }
            Ok(trace)
        });
    match parts {
        Ok(trace) => Request::Message {
            id,
            body,
            trace: traceparent(&trace),
        },
        Err(error) => Request::Unreadable {
            id,
            reason: error.to_string(),
        },
    }
}

fn traceparent(carrier: &[u8]) -> Option<String> {
    let carrier: Value = serde_json::from_slice(carrier).ok()?;
    carrier.get("traceparent")?.as_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{Frames, Reply, Request};
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    fn frame(content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len()).unwrap();
        [&size.to_be_bytes()[..], content].concat()
    }

    #[tokio::test]
    async fn a_frame_may_arrive_in_pieces_and_a_large_one_is_read_past() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours, 20);
        let small = frame(b"\x92\x07\x81\xa1a\x01");
        let mut large = frame(&[&b"\x92\x08\xda\x00\x64"[..], &[b'x'; 100]].concat());
        large.extend(frame(b"\x92\x09\xc4\x00"));
        theirs.write_all(&small[..5]).await.unwrap();
        tokio::task::yield_now().await;
        theirs.write_all(&small[5..]).await.unwrap();
        theirs.write_all(&large).await.unwrap();
        drop(theirs);
        let mut seen = Vec::new();
        while let Some(request) = frames.next().await.unwrap() {
            seen.push(request);
        }
        let expected = [
            Request::Message {
                id: 7,
                body: br#"{"a":1}"#.to_vec(),
                trace: None,
            },
            Request::TooLarge {
                id: 8,
                size: 105,
                limit: 20,
            },
            Request::Unreadable {
                id: 9,
                reason: "bytes have no JSON form".to_owned(),
            },
        ];
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn answers_have_the_shape_that_the_runner_reads() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let mut frames = Frames::new(ours, 20);
        frames.reply(1, Reply::Nothing).await.unwrap();
        frames.reply(2, Reply::Body(json!("b"))).await.unwrap();
        frames.reply(3, Reply::Error(json!("e"))).await.unwrap();
        drop(frames);
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.unwrap();
        let expected = [
            frame(b"\x91\x01"),
            frame(b"\x92\x02\xa1b"),
            frame(b"\x93\x03\xc0\xa1e"),
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}

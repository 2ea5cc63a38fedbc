//! What plugins do with payloads, without caring in which of the two forms they come.

use crate::Error;
use crate::bytes::{Body, Payload};

/// How much is read at a time.
const CHUNK: u32 = 256 << 10;

pub trait PayloadExt: Sized {
    fn size(&self) -> u64;
    /// A handle, whichever form it came in.
    fn into_body(self) -> Body;
    /// Everything in memory; mind the grant.
    fn into_bytes(self) -> Result<Vec<u8>, Error>;
}

impl PayloadExt for Payload {
    fn size(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Handle(body) => body.size(),
        }
    }

    fn into_body(self) -> Body {
        match self {
            Payload::Inline(bytes) => Body::of(&bytes),
            Payload::Handle(body) => body,
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, Error> {
        let body = match self {
            Payload::Inline(bytes) => return Ok(bytes),
            Payload::Handle(body) => body,
        };
        let mut all = Vec::new();
        loop {
            let piece = body.read(CHUNK)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&piece);
        }
    }
}

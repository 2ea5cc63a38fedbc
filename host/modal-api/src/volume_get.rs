//! Reading from volumes, block by block. Nothing is kept here.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    Client, Error, Volume,
    http::Attempts,
    volumes::{BLOCK, relative},
    wire,
};

const BLOCKS_AT_ONCE: usize = 8;

impl Client {
    /// A file's content, in memory.
    pub async fn volume_get(&self, volume: &Volume, path: &str) -> Result<Bytes, Error> {
        self.volume_get_range(volume, path, 0, 0).await
    }

    /// Part of a file's content; a length of zero is all that follows.
    pub async fn volume_get_range(
        &self,
        volume: &Volume,
        path: &str,
        start: u64,
        length: u64,
    ) -> Result<Bytes, Error> {
        let request = wire::VolumeGetFile2Request {
            volume_id: volume.volume_id.clone(),
            path: relative(path).to_owned(),
            start,
            len: length,
            client_pads_blocks: true,
        };
        // The second version's request serves both.
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.volume_get_file2(request).await
            })
            .await?;
        let lengths = block_lengths(answer.start, answer.len, answer.get_urls.len())?;
        let what = format!("{path} of a volume");
        let blocks = answer
            .get_urls
            .iter()
            .zip(lengths)
            .map(|(address, length)| {
                let what = &what;
                async move {
                    let attempts = Attempts::DOWNLOAD;
                    let body = self.http.get(what, address, length, attempts).await?;
                    Ok::<_, Error>((body, length))
                }
            });
        let mut whole = BytesMut::new();
        let mut blocks = futures::stream::iter(blocks.collect::<Vec<_>>()).buffered(BLOCKS_AT_ONCE);
        while let Some((body, length)) = blocks.try_next().await? {
            let end = whole.len() + length;
            whole.extend_from_slice(&body);
            // Zeros at a block's end are not sent.
            whole.resize(end, 0);
        }
        Ok(whole.freeze())
    }
}

/// How long each of the blocks is that a range of a file touches.
// modal: _expected_block_lengths
fn block_lengths(start: u64, length: u64, blocks: usize) -> Result<Vec<usize>, Error> {
    let end = start + length;
    let mut at = start;
    let mut lengths = Vec::with_capacity(blocks);
    for _ in 0..blocks {
        let next = ((at / BLOCK + 1) * BLOCK).min(end).max(at);
        lengths.push(usize::try_from(next - at).unwrap_or(usize::MAX));
        at = next;
    }
    if at == end {
        return Ok(lengths);
    }
    Err(Error::Unexpected(format!(
        "{blocks} blocks for {length} bytes from {start}"
    )))
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, block_lengths};

    #[test]
    fn a_range_is_cut_where_blocks_end() {
        let block = usize::try_from(BLOCK).unwrap();
        assert_eq!(block_lengths(0, 0, 0).unwrap(), [0; 0]);
        assert_eq!(block_lengths(0, BLOCK + 1, 2).unwrap(), [block, 1]);
        assert_eq!(block_lengths(BLOCK - 2, 4, 2).unwrap(), [2, 2]);
        assert_eq!(block_lengths(BLOCK, BLOCK, 1).unwrap(), [block]);
        assert_eq!(block_lengths(0, 1, 2).unwrap(), [1, 0]);
        assert!(block_lengths(0, BLOCK + 1, 1).is_err());
    }
}

//! A reader that checks the JSON it hands on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::json_text::{Fault, JsonText};

/// Ends with an error as soon as what was read can't be JSON any more.
pub(super) struct CheckedReader<R> {
    inner: R,
    text: JsonText,
    fault: Option<Fault>,
}

impl<R> CheckedReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            text: JsonText::default(),
            fault: None,
        }
    }

    /// Why the reading ended early, if it was for the JSON.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }

    /// # Errors
    /// When the text is cut off.
    pub(super) fn finish(self) -> Result<(), Fault> {
        self.text.finish()
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for CheckedReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        match self.text.feed(&buffer.filled()[before..]) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(fault) => {
                self.fault = Some(fault.clone());
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)))
            }
        }
    }
}

//! A client's socket with two timers that hyper has none for: a connection that never says what it
//! speaks, and a reader that takes nothing. (Of a stream on HTTP/2 the relay sees whether it is read.)

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// What an HTTP/2 connection begins with (RFC 9113, 3.4): hyper reads as far as this before it
/// knows the version, and without a timer.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct TimedIo {
    stream: TcpStream,
    stalled_reader: Duration,
    /// Until it is known what the client speaks.
    opening: Option<Opening>,
    /// Since the client has taken nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

struct Opening {
    until: Pin<Box<Sleep>>,
    /// How much of the preface has come.
    matched: usize,
}

impl TimedIo {
    pub(crate) fn new(stream: TcpStream, head: Duration, stalled_reader: Duration) -> TimedIo {
        let opening = Some(Opening { until: Box::pin(sleep(head)), matched: 0 });
        TimedIo { stream, stalled_reader, opening, stalled: None }
    }

    /// Passes a write's outcome on; one that waits too long is an error.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<std::io::Result<usize>>,
    ) -> Poll<std::io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.stalled_reader)));
        ready!(stalled.as_mut().poll(context));
        tracing::info!(within = ?self.stalled_reader, "a client takes nothing (server.timeouts.stalled_reader)");
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl Opening {
    /// Whether what has come may still become the preface.
    fn goes_on(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.matched..];
        let same = bytes.iter().zip(rest).take_while(|(byte, wanted)| byte == wanted).count();
        self.matched += same;
        same == bytes.len() && self.matched < PREFACE.len()
    }
}

impl AsyncRead for TimedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(opening) = &mut this.opening else { return read };
        if read.is_pending() {
            ready!(opening.until.as_mut().poll(context));
            return Poll::Ready(Err(Error::new(
                ErrorKind::TimedOut,
                "no request came (server.timeouts.head)",
            )));
        }
        if !opening.goes_on(&buffer.filled()[before..]) {
            this.opening = None;
        }
        read
    }
}

impl AsyncWrite for TimedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spoken_is_known_as_soon_as_it_can_be() {
        let opening = || Opening { until: Box::pin(sleep(Duration::MAX)), matched: 0 };
        assert!(!opening().goes_on(b"GET"));
        assert!(opening().goes_on(b"P"));
        let mut post = opening();
        assert!(post.goes_on(b"P") && !post.goes_on(b"O"));
        let mut two = opening();
        assert!(two.goes_on(&PREFACE[..20]) && !two.goes_on(&PREFACE[20..]));
        assert!(!opening().goes_on(PREFACE));
    }
}

//! One TCP connection: HTTP/1.1 or cleartext HTTP/2, until it ends or is reset.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::service::Service;

/// Resets one connection, from wherever an answer is made.
#[derive(Default)]
pub(crate) struct ResetSwitch {
    thrown: AtomicBool,
    news: Notify,
}

/// A socket that closes with a reset if its switch was thrown.
struct Socket {
    stream: TcpStream,
    switch: Arc<ResetSwitch>,
}

/// Serves until the client leaves, or the switch is thrown.
pub(crate) async fn serve(stream: TcpStream, service: Service) {
    // Without it, Nagle would join the chunks of a split answer. It fails only
    // on a connection that is dead, which the first read will say as well.
    let _ = stream.set_nodelay(true);
    let switch = Arc::clone(service.switch());
    let io = TokioIo::new(Socket { stream, switch: Arc::clone(&switch) });
    let service = Arc::new(service);
    let handler = service_fn(move |request: http::Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { service.serve(request).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = pin!(builder.serve_connection(io, handler));
    tokio::select! {
        biased; // what was said before the reset is flushed first
        _ended = serving => (), // how is in the books
        () = switch.thrown() => (),
    }
}

// === impl ResetSwitch ===

impl ResetSwitch {
    /// Returns at once; the connection is gone soon.
    pub(crate) fn reset(&self) {
        self.thrown.store(true, Ordering::Release);
        self.news.notify_one();
    }

    async fn thrown(&self) {
        while !self.thrown.load(Ordering::Acquire) {
            self.news.notified().await;
        }
    }
}

// === impl Socket ===

impl Drop for Socket {
    /// With no time to linger, closing sends a reset instead of an end.
    fn drop(&mut self) {
        if self.switch.thrown.load(Ordering::Acquire) {
            let _ = self.stream.set_zero_linger(); // fails only if the peer was faster
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! Connects to vendors within a time. Each connection knows whether it has carried an answer before.

use std::future::Future;
use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;

/// Between two signs of life on a silent connection.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects, TLS included, within a time.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<HttpConnector>,
    within: Duration,
}

/// A connection to a vendor.
pub(crate) struct Tracked {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    served: Served,
}

/// Whether a connection has carried an answer.
#[derive(Clone, Debug, Default)]
struct Served(Arc<AtomicBool>);

/// The time was over.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(crate) struct NotInTime;

impl Connector {
    pub(crate) fn new(tls: ClientConfig, within: Duration) -> Connector {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_keepalive_interval(Some(TCP_KEEPALIVE));
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Connector { inner, within }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Tracked;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, within) = (self.inner.call(uri), self.within);
        Box::pin(async move {
            let connected = tokio::time::timeout(within, connecting).await;
            let stream = connected.unwrap_or_else(|_elapsed| Err(NotInTime.into()))?;
            Ok(Tracked { stream, served: Served::default() })
        })
    }
}

/// An answer with this head has begun on its connection.
pub(crate) fn serves(extensions: &Extensions) {
    if let Some(served) = extensions.get::<Served>() {
        served.0.store(true, Ordering::Release);
    }
}

/// Whether a request may have failed because its connection had been closed while it rested: it had
/// carried an answer before, and carries one at a time. (Of HTTP/2, where the vendor says what became
/// of a call, hyper repeats by itself what was not begun.)
pub(crate) fn may_be_stale(error: &legacy::Error) -> bool {
    let Some(connected) = error.connect_info().filter(|connected| !connected.is_negotiated_h2()) else {
        return false;
    };
    let mut extensions = Extensions::new();
    connected.get_extras(&mut extensions);
    extensions.get::<Served>().is_some_and(|served| served.0.load(Ordering::Acquire))
}

impl Connection for Tracked {
    /// Says nothing of addresses: what is said here is written into each answer.
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.served.clone());
        match self.stream.connected().is_negotiated_h2() {
            true => connected.negotiated_h2(),
            false => connected,
        }
    }
}

impl Read for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

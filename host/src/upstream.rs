//! The way out: clients that go nowhere by themselves.
//!
//! They are hyper-util's, not reqwest's: measured in the gateway, reqwest's layers for redirects,
//! cookies and URLs, switched off, still cost a sixth of a request's CPU time. These have no
//! redirects to switch off, and read no proxy from the environment.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::fault::{FaultKind, Timer};

/// Connections that rest longer are closed.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Bytes of an answer's head at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Makes clients; upstreams that wait as long for a connection share one.
pub(crate) struct Clients {
    tls: ClientConfig,
    by_connect: Mutex<BTreeMap<Duration, Weak<Client>>>,
}

/// Sends requests that are complete.
pub(crate) struct Client(legacy::Client<Connector, Full<Bytes>>);

/// Connects, TLS included, within a time.
#[derive(Clone)]
struct Connector {
    inner: HttpsConnector<HttpConnector>,
    within: Duration,
}

/// The time was over.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
struct NotInTime;

impl Clients {
    /// # Errors
    ///
    /// Where TLS cannot be set up.
    pub(crate) fn new() -> Result<Clients, rustls::Error> {
        Ok(Clients { tls: tls()?, by_connect: Mutex::default() })
    }

    /// One that gives up after this time without a connection.
    pub(crate) fn connecting_within(&self, within: Duration) -> Arc<Client> {
        let mut clients = self.by_connect.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, client| client.strong_count() > 0);
        if let Some(client) = clients.get(&within).and_then(Weak::upgrade) {
            return client;
        }
        let client = Arc::new(Client::new(self.tls.clone(), within));
        clients.insert(within, Arc::downgrade(&client));
        client
    }
}

impl Client {
    fn new(tls: ClientConfig, within: Duration) -> Client {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(Connector { inner, within });
        Client(client)
    }

    /// Sends, and waits for the head of the answer until `deadline`.
    ///
    /// # Errors
    ///
    /// How the vendor failed: unreachable, silent, broken off, redirecting, or refusing the credential.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        timer: Timer,
    ) -> Result<Response<Incoming>, FaultKind> {
        let response = match tokio::time::timeout_at(deadline, self.0.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(fault(&error)),
            Err(_elapsed) => return Err(FaultKind::Timeout(timer)),
        };
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(FaultKind::Credential),
            status if status.is_redirection() || status.is_informational() => Err(FaultKind::Redirected),
            _ => Ok(response),
        }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, within) = (self.inner.call(uri), self.within);
        Box::pin(async move {
            tokio::time::timeout(within, connecting).await.unwrap_or_else(|_elapsed| Err(NotInTime.into()))
        })
    }
}

/// Trusts what the machine trusts.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!(
            "the machine has no certificates to trust: https upstreams cannot be reached (install ca-certificates)"
        );
    }
    let provider = rustls::crypto::ring::default_provider().into();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The cause goes to the log here; none of these errors tells the address, which may carry a secret.
fn fault(error: &legacy::Error) -> FaultKind {
    let mut fault = if error.is_connect() { FaultKind::Unreachable } else { FaultKind::Broken };
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
        if cause.is::<NotInTime>() {
            fault = FaultKind::Timeout(Timer::Connect);
        }
    }
    tracing::debug!(fault = fault.code(), cause = %cause, "upstream fault");
    fault
}

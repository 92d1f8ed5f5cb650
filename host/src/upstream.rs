//! The way out: clients that go nowhere by themselves.
//!
//! They are hyper-util's, not reqwest's: measured in the gateway, reqwest's layers for redirects,
//! cookies and URLs, switched off, still cost a sixth of a request's CPU time. These have no
//! redirects to switch off, and read no proxy from the environment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use thread_local::ThreadLocal;
use tokio::time::Instant;

use crate::connector::{self, Connector, NotInTime};
use crate::fault::{FaultKind, Timer};

/// Connections that rest longer are closed.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Between two signs of life on an HTTP/2 connection with a call on it, and for the answer to one:
/// a connection that died without a word is replaced then.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(15);
const HTTP2_PING_WITHIN: Duration = Duration::from_secs(10);

/// A connection that was closed while it rested fails a request within a round trip; with room for busy machines.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of an answer's head at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Makes clients; upstreams that wait as long for a connection share one.
pub(crate) struct Clients {
    tls: ClientConfig,
    by_connect: Mutex<BTreeMap<Duration, Weak<Client>>>,
}

/// Sends requests that are complete.
pub(crate) struct Client {
    /// One for each thread: a connection is of the thread that has made it, and wakes no other.
    keeping: ThreadLocal<legacy::Client<Connector, Full<Bytes>>>,
    /// Makes a connection for each request.
    fresh: legacy::Client<Connector, Full<Bytes>>,
    connector: Connector,
}

/// Whether a request goes out again whose connection had been closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    Stale,
    Never,
}

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
        let connector = Connector::new(tls, within);
        let fresh = builder().pool_max_idle_per_host(0).build(connector.clone());
        Client { keeping: ThreadLocal::new(), fresh, connector }
    }

    /// Sends, and waits for the head of the answer until `deadline`. `request` makes the same request
    /// each time.
    ///
    /// A vendor may close a connection that rested at the moment in which it is used again. That is
    /// no failure of the vendor's: the request goes out once more on a new one (another that rested
    /// may have been closed as well). What fails later than at once has been worked on.
    ///
    /// # Errors
    ///
    /// How the vendor failed: unreachable, silent, hung up, redirecting, or refusing the credential.
    pub(crate) async fn send(
        &self,
        request: impl Fn() -> Result<Request<Full<Bytes>>, FaultKind>,
        deadline: Instant,
        timer: Timer,
        repeats: Repeats,
    ) -> Result<Response<Incoming>, FaultKind> {
        let mut client = self.keeping.get_or(|| builder().build(self.connector.clone()));
        let mut repeated = repeats == Repeats::Never;
        let response = loop {
            let (request, sent) = (request()?, Instant::now());
            match tokio::time::timeout_at(deadline, client.request(request)).await {
                Ok(Ok(response)) => {
                    connector::serves(response.extensions());
                    break response;
                }
                Ok(Err(error)) => {
                    let fault = fault(&error);
                    let stale = connector::may_be_stale(&error) && sent.elapsed() < STALE_WITHIN;
                    if fault != FaultKind::HungUp || !stale || repeated {
                        return Err(fault);
                    }
                    (client, repeated) = (&self.fresh, true);
                }
                Err(_elapsed) => return Err(FaultKind::Timeout(timer)),
            }
        };
        match response.status() {
            // What the vendor says of the operator's account is not for clients.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED) => {
                Err(FaultKind::Credential { status: Some(status.as_u16()) })
            }
            StatusCode::FORBIDDEN => Err(FaultKind::Forbidden),
            status if status.is_redirection() || status.is_informational() => Err(FaultKind::Redirected),
            status if status.as_u16() > 599 => Err(FaultKind::Malformed),
            _ => Ok(response),
        }
    }
}

fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .http2_keep_alive_interval(HTTP2_PING_EVERY)
        .http2_keep_alive_timeout(HTTP2_PING_WITHIN);
    builder
}

/// Trusts what the machine trusts.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
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
    let mut fault = if error.is_connect() { FaultKind::Unreachable } else { FaultKind::HungUp };
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

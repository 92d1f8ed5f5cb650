//! The way out: one client for all upstreams, which goes nowhere by itself.
//!
//! It is hyper-util's, not reqwest's: measured in the gateway, reqwest's layers for redirects,
//! cookies and URLs, switched off, still cost a sixth of a request's CPU time. This one has no
//! redirects to switch off, and reads no proxy from the environment.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use crate::refusal::UpstreamFault;

/// From the first byte of a request to the last of its answer.
pub(crate) const TOTAL_MAX: Duration = Duration::from_secs(600);

/// Until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Connections that rest longer are closed.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Bytes of an answer's head at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Sends requests that are complete.
pub(crate) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// The head of an answer, and until when its body may take.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) deadline: Instant,
}

impl Client {
    /// # Errors
    ///
    /// Where TLS cannot be set up.
    pub(crate) fn new() -> Result<Client, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(Client(client))
    }

    /// Sends, and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// How the vendor failed: unreachable, silent, broken off, or redirecting.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, UpstreamFault> {
        let deadline = Instant::now() + TOTAL_MAX;
        let response = match tokio::time::timeout_at(deadline, self.0.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(fault(&error)),
            Err(_elapsed) => return Err(UpstreamFault::Silent),
        };
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(UpstreamFault::Credential),
            status if status.is_redirection() || status.is_informational() => Err(UpstreamFault::Redirected),
            _ => Ok(Answer { response, deadline }),
        }
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
fn fault(error: &legacy::Error) -> UpstreamFault {
    let fault = if error.is_connect() { UpstreamFault::Unreachable } else { UpstreamFault::Broken };
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    tracing::debug!(fault = fault.code(), cause = %cause, "upstream fault");
    fault
}

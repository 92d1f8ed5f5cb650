//! The way out: one client for all upstreams, which goes nowhere by itself.

use std::time::Duration;

use http::StatusCode;
use reqwest::redirect;

use crate::refusal::UpstreamFault;

/// From the first byte of a request to the last of its answer.
pub(crate) const TOTAL_MAX: Duration = Duration::from_secs(600);

/// Until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Connections that rest longer are closed.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// Sends requests that are complete; follows no redirect, uses no proxy of the environment.
pub(crate) struct Client(reqwest::Client);

impl Client {
    /// # Errors
    ///
    /// Where the machine has no certificates to trust.
    pub(crate) fn new() -> Result<Client, reqwest::Error> {
        // A second gateway in the process finds it installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .referer(false)
            .retry(reqwest::retry::never())
            .build()?;
        Ok(Client(client))
    }

    /// Sends, and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// How the vendor failed: unreachable, silent, broken off, or redirecting.
    pub(crate) async fn send(
        &self,
        mut request: reqwest::Request,
    ) -> Result<reqwest::Response, UpstreamFault> {
        *request.timeout_mut() = Some(TOTAL_MAX);
        let response = self.0.execute(request).await.map_err(|error| fault(&error))?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(UpstreamFault::Credential),
            status if status.is_redirection() || status.is_informational() => Err(UpstreamFault::Redirected),
            _ => Ok(response),
        }
    }
}

/// The cause goes to the log here, without the URL: it may carry a secret.
fn fault(error: &reqwest::Error) -> UpstreamFault {
    let fault = match error {
        error if error.is_timeout() && !error.is_connect() => UpstreamFault::Silent,
        error if error.is_connect() => UpstreamFault::Unreachable,
        _ => UpstreamFault::Broken,
    };
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    tracing::debug!(fault = fault.code(), cause = %cause, "upstream fault");
    fault
}

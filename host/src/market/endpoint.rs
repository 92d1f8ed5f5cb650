//! Our own endpoint, asked from here by its public address: whether the market will find us there, and
//! for answers to those who write messages instead of calling.

use std::time::Duration;

use http::HeaderName;
use http::header::CONTENT_TYPE;
use rustls::ClientConfig;
use serde_json::Value;
use url::Url;

use crate::config::Secret;

/// For the whole of a probe, and of a completion.
const WITHIN: Duration = Duration::from_secs(10);
const COMPLETED_WITHIN: Duration = Duration::from_secs(300);

/// Says that it is this gateway that answers, and no other server.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-sluice-endpoint");

/// What follows the endpoint's path.
const PATH: &str = "healthcheck";

/// Why the endpoint cannot be given to the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOurs {
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("it is refused there: an address of the outside needs [keys] required = true")]
    Forbidden,
    #[error("somebody else answers there")]
    SomebodyElse,
    #[error("it is no address that a path could follow")]
    Address,
}

/// Asks the endpoint who it is.
///
/// # Errors
///
/// [`NotOurs`]: what was won could not be served.
pub(crate) async fn probe(endpoint: &Url, tls: ClientConfig, ours: &str) -> Result<(), NotOurs> {
    let page = page(endpoint).ok_or(NotOurs::Address)?;
    let client = client(tls, WITHIN).ok_or(NotOurs::Unreachable)?;
    let answer = client.get(page).send().await.map_err(|_| NotOurs::Unreachable)?;
    match answer.status().as_u16() {
        200 => {}
        403 => return Err(NotOurs::Forbidden),
        status => return Err(NotOurs::Status(status)),
    }
    let said = answer.headers().get(HEADER).and_then(|said| said.to_str().ok());
    if said == Some(ours) { Ok(()) } else { Err(NotOurs::SomebodyElse) }
}

/// The text of a completion, as the market would get it with this key; none where there is none.
pub(crate) async fn complete(
    endpoint: &Url,
    tls: ClientConfig,
    key: &Secret,
    body: &Value,
) -> Option<String> {
    let request = client(tls, COMPLETED_WITHIN)?.post(endpoint.clone()).bearer_auth(key.reveal());
    let answer = request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await.ok()?;
    if answer.status() != 200 {
        tracing::debug!(status = answer.status().as_u16(), "no answer for a chat");
        return None;
    }
    let answer: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    let text = answer.pointer("/choices/0/message/content")?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn client(tls: ClientConfig, within: Duration) -> Option<reqwest::Client> {
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().referer(false);
    client.redirect(reqwest::redirect::Policy::none()).timeout(within).build().ok()
}

fn page(endpoint: &Url) -> Option<Url> {
    let mut page = endpoint.clone();
    page.path_segments_mut().ok()?.pop_if_empty().push(PATH);
    page.set_query(None);
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_below_the_endpoint_with_and_without_a_slash() {
        for endpoint in ["http://h/v1/completions/", "http://h/v1/completions", "http://h/v1/completions?x=1"]
        {
            let page = page(&endpoint.parse().unwrap()).unwrap();
            assert_eq!(page.as_str(), "http://h/v1/completions/healthcheck", "{endpoint}");
        }
        assert_eq!(page(&"mailto:a@b".parse().unwrap()), None);
    }
}

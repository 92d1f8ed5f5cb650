//! What goes over the wire to the market, and what comes back. The only module that sends to it.
//!
//! It goes nowhere by itself: no redirect, which would carry the API key along, no cookie, no proxy of
//! the environment. These are a few calls a second, so reqwest's layers cost nothing that counts; what
//! serves requests has a client of its own (`upstream.rs`).

use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, redirect};
use rustls::ClientConfig;
use serde::Serialize;
use url::Url;

use super::error::{Detail, MarketError};
use super::wire;
use crate::config::Secret;

/// For a connection, TLS included, and for a whole call.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const CALL_MAX: Duration = Duration::from_secs(15);

/// Connections that rest longer are closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes of an answer at most: some thousand jobs with their conversations.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A wait that the market asks for counts as no more than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// Sends to one market.
pub(super) struct Transport {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// A machine: the API key.
    Key(Secret),
    /// A person: what a login has given.
    Token(Secret),
}

/// There is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("setting up the client for the market")]
    Http(#[from] reqwest::Error),
}

/// A request that is being put together.
pub(super) struct Request<'a> {
    method: Method,
    path: &'a str,
    query: Option<String>,
    credential: Option<&'a Credential>,
    body: Body,
    /// What is sent besides the credential and must not be repeated.
    secrets: Vec<&'a str>,
}

pub(super) enum Body {
    None,
    Json(String),
    Form(String),
}

impl Transport {
    /// # Errors
    ///
    /// Where no client can be set up.
    pub(super) fn new(base_url: &Url, tls: ClientConfig) -> Result<Transport, ClientError> {
        Transport::with_timers(base_url, tls, CONNECT_MAX, CALL_MAX)
    }

    fn with_timers(
        base_url: &Url,
        tls: ClientConfig,
        connect: Duration,
        call: Duration,
    ) -> Result<Transport, ClientError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(connect)
            .timeout(call)
            .pool_idle_timeout(IDLE_MAX)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Transport { http, base: base_url.as_str().trim_end_matches('/').to_owned() })
    }

    /// Sends, and reads the whole answer, if it is a good one.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Vec<u8>, MarketError> {
        let Request { method, path, query, credential, body, mut secrets } = request;
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(credential) = credential {
            let (name, value) = credential.header()?;
            headers.insert(name, value);
            secrets.push(credential.secret().reveal());
        }
        let mut sending = self.http.request(method, format!("{}{path}{query}", self.base));
        match body {
            Body::None => {}
            Body::Json(text) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                sending = sending.body(text);
            }
            Body::Form(text) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                sending = sending.body(text);
            }
        }
        let mut response = sending.headers(headers).send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        tracing::debug!(path, status = status.as_u16(), "the market has answered");
        if status.is_success() {
            let (bytes, end) = read(&mut response, ANSWER_BYTES_MAX).await?;
            return match end {
                End::Whole => Ok(bytes),
                End::Cut => Err(MarketError::Garbage { why: "it is longer than 8 MiB" }),
            };
        }
        // A refusal without its words is one, too.
        let words = read(&mut response, REFUSAL_BYTES_MAX).await.map(|(bytes, _)| bytes).unwrap_or_default();
        Err(MarketError::of(status.as_u16(), retry_after(response.headers()), &words, &secrets))
    }
}

impl Credential {
    pub(super) fn secret(&self) -> &Secret {
        match self {
            Credential::Key(secret) | Credential::Token(secret) => secret,
        }
    }

    /// Marked, so that no library shows it.
    fn header(&self) -> Result<(HeaderName, HeaderValue), MarketError> {
        let (name, value) = match self {
            Credential::Key(key) => (HeaderName::from_static("x-api-key"), key.reveal().to_owned()),
            Credential::Token(token) => (AUTHORIZATION, format!("Bearer {}", token.reveal())),
        };
        // What no header can carry, no market has given.
        let no_header = |_| MarketError::Unauthorized { detail: Detail::default() };
        let mut value = HeaderValue::from_str(&value).map_err(no_header)?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}

impl<'a> Request<'a> {
    pub(super) fn get(path: &'a str) -> Request<'a> {
        Request {
            method: Method::GET,
            path,
            query: None,
            credential: None,
            body: Body::None,
            secrets: vec![],
        }
    }

    pub(super) fn post(path: &'a str, body: Body) -> Request<'a> {
        Request { method: Method::POST, body, ..Request::get(path) }
    }

    pub(super) fn by(self, credential: &'a Credential) -> Request<'a> {
        Request { credential: Some(credential), ..self }
    }

    pub(super) fn asking(self, query: String) -> Request<'a> {
        Request { query: Some(query), ..self }
    }

    pub(super) fn hiding(mut self, secret: &'a Secret) -> Request<'a> {
        self.secrets.push(secret.reveal());
        self
    }
}

impl Body {
    pub(super) fn of(body: &impl Serialize) -> Result<Body, MarketError> {
        let unsendable = |_| MarketError::Garbage { why: "it cannot be written as JSON" };
        serde_json::to_string(body).map(Body::Json).map_err(unsendable)
    }
}

/// Whether all of an answer was read.
enum End {
    Whole,
    Cut,
}

async fn read(response: &mut Response, bytes_max: usize) -> Result<(Vec<u8>, End), MarketError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        let room = bytes_max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok((bytes, End::Cut));
        }
    }
    Ok((bytes, End::Whole))
}

/// The innermost cause alone: the outer ones name the address with its query.
fn failed(error: &reqwest::Error) -> MarketError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() && !error.is_connect() {
        return MarketError::Timeout;
    }
    let why = if error.is_timeout() {
        "no connection in time".into()
    } else {
        wire::printable(&cause.to_string(), 200)
    };
    MarketError::Unreachable { why }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(value).ok()?;
            at.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
pub(super) mod tests;

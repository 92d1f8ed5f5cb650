//! Calls a winner's endpoint, as the market does: HTTP/1.1, the proposal's key, a deadline.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::market::instance::{CallRow, Proposal, Verdict};
use crate::market::running::Market;
use crate::market::verdict;

/// Most bytes of an answer: 16 MiB, above what a model says.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a winner is called, and with which key.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    url: String,
    key: Option<String>,
}

/// What came back, whatever it is.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

// === impl Endpoint ===

impl Endpoint {
    pub(crate) fn of(proposal: &Proposal) -> Option<Endpoint> {
        Some(Endpoint { url: proposal.endpoint.clone()?, key: proposal.endpoint_key.clone() })
    }
}

// === impl Answer ===

impl Answer {
    /// As the list of an instance's completions shows it.
    pub(crate) fn shown(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(json) => json,
            Err(_) => {
                verdict::joined(&self.body).unwrap_or_else(|| json!(String::from_utf8_lossy(&self.body)))
            }
        }
    }
}

/// Makes one call and judges the answer. It ends by `deadline`, since the
/// market began.
pub(crate) async fn made(
    market: &Market,
    endpoint: &Endpoint,
    body: &Value,
    deadline: Duration,
) -> (Option<Answer>, CallRow) {
    let streamed = body["stream"] == true;
    let began = market.now();
    let exchange = Box::pin(async {
        let _turn = market.calls.acquire().await;
        posted(endpoint, body.to_string()).await
    });
    let answer = tokio::select! {
        answer = exchange => answer,
        () = market.sleep_until(deadline) => Err("no answer in time".to_owned()),
    };
    let took_ms = u64::try_from((market.now() - began).as_millis()).unwrap_or(u64::MAX);
    let row = CallRow { streamed, took_ms, ..CallRow::default() };
    match answer {
        Ok(answer) => {
            let row = CallRow { status: Some(answer.status.as_u16()), ..row };
            let row = verdict::judged(&answer, row);
            (Some(answer), row)
        }
        Err(why) => (None, CallRow { verdict: Verdict::Failed, why: Some(why), ..row }),
    }
}

/// Posts to the endpoint on a connection of its own; the error says what failed.
async fn posted(endpoint: &Endpoint, body: String) -> Result<Answer, String> {
    let uri: Uri = endpoint.url.parse().map_err(|error| format!("the endpoint is no URL: {error}"))?;
    let authority = uri.authority().ok_or("the endpoint has no host")?;
    if uri.scheme_str() != Some("http") {
        return Err("the stand-in speaks plain HTTP alone".to_owned());
    }
    let stream =
        TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80)));
    let stream = stream.await.map_err(|error| format!("connecting: {error}"))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| format!("connecting: {error}"))?;
    let request = request(endpoint, &uri, body)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| format!("asking: {error}"))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("reading: {error}"))?.to_bytes();
        Ok(Answer { status: head.status, content_type: head.headers.get(CONTENT_TYPE).cloned(), body })
    };
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased; // what has come before the connection ended is an answer
        answer = &mut exchange => answer,
        _ended = &mut connection => exchange.await,
    }
}

fn request(endpoint: &Endpoint, uri: &Uri, body: String) -> Result<Request<Full<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream");
    if let Some(key) = &endpoint.key {
        request = request.header(AUTHORIZATION, format!("Bearer {key}"));
    }
    request
        .body(Full::new(body.into()))
        .map_err(|error| format!("the endpoint or its key is not right: {error}"))
}

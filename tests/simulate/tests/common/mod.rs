//! A client that sees the wire: it writes HTTP/1.1 by hand and reads bytes.

#![allow(dead_code, reason = "each test binary uses its share")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

pub(crate) mod market;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_simulate::{Goal, Row, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait of a test for anything: far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A response, as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    /// The chunks of a chunked body; else the body as one.
    pub(crate) chunks: Vec<Vec<u8>>,
    /// How reading ended: None is the end of the stream.
    pub(crate) error: Option<io::ErrorKind>,
}

// === impl Answer ===

impl Answer {
    pub(crate) fn body(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body()).unwrap()
    }

    /// The JSON of all events that have some, in the plain style; their names,
    /// where they have one, are what their data says they are.
    pub(crate) fn json_events(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.body()).into_owned();
        let json_of = |event: &str| {
            let (name, data) = match event.strip_prefix("event: ") {
                Some(rest) => rest.split_once("\ndata: ").map(|(name, data)| (Some(name), data))?,
                None => (None, event.strip_prefix("data: ")?),
            };
            let json: Value = data.parse().ok()?;
            assert!(name.is_none_or(|name| json["type"] == name), "{event}");
            Some(json)
        };
        text.split("\n\n").filter_map(json_of).collect()
    }

    /// The data of a stream in the plain style.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = String::from_utf8(self.body()).unwrap();
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }
}

/// A good request of Anthropic's wire; its prompt has two words, its answer four.
pub(crate) fn message(stream: bool) -> Value {
    json!({ "model": "m", "max_tokens": 2000, "stream": stream, "messages": [{ "role": "user", "content": "grüß Gott" }] })
}

/// A simulator whose vendor `a` follows this script.
pub(crate) async fn scripted(script: Value) -> Simulator {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    simulator.direct("a", serde_json::from_value(script).unwrap());
    simulator
}

/// A good request; its prompt has two words, its answer four.
pub(crate) fn chat(stream: bool) -> Value {
    json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": "grüß Gott" }] })
}

/// The head and body of a POST to vendor `a`, closing afterwards.
pub(crate) fn post(body: &str) -> String {
    request("POST", "/a/v1/chat/completions", body)
}

pub(crate) fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The head and body of a POST of a message to vendor `a`, closing afterwards.
pub(crate) fn post_message(body: &str) -> String {
    let key = "x-api-key: k\r\nanthropic-version: 2023-06-01";
    request("POST", "/a/v1/messages", body).replace("authorization: Bearer k", key)
}

/// Sends the request and reads until the stand-in closes.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let ended = soon(stream.read_to_end(&mut bytes)).await;
    parse(&bytes, ended.err().map(|error| error.kind()))
}

pub(crate) async fn ask(simulator: &Simulator, body: &Value) -> Answer {
    exchange(simulator.address(), &post(&body.to_string())).await
}

pub(crate) async fn ask_message(simulator: &Simulator, body: &Value) -> Answer {
    exchange(simulator.address(), &post_message(&body.to_string())).await
}

/// The only row, once its request has ended.
pub(crate) async fn only_row(simulator: &Simulator) -> Row {
    let mut rows = soon(simulator.books_when(Goal::Finished(1))).await.rows;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened for so long")
}

/// Takes apart as much of a response as there is.
pub(crate) fn parse(bytes: &[u8], error: Option<io::ErrorKind>) -> Answer {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer { status: 0, head: String::new(), chunks: Vec::new(), error };
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let body = &bytes[end + 4..];
    let chunked = head.contains("transfer-encoding: chunked");
    let chunks = if chunked { chunks(body) } else { vec![body.to_vec()] };
    Answer { status: head[9..12].parse().unwrap(), head, chunks, error }
}

fn chunks(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        let Some(chunk) = body.get(end + 2..end + 2 + size) else { break };
        chunks.push(chunk.to_vec());
        body = body.get(end + 2 + size + 2..).unwrap_or_default();
    }
    chunks
}

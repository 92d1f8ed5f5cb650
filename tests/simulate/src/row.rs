//! One request as the vendor's books show it.

use std::fmt;

use bytes::Bytes;
use serde::ser::{Serialize, Serializer};

use crate::base64;
use crate::fault::FaultKind;

/// One request: what came, what was answered, what is billed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Counts up from 1 and is never used twice, even after the books were cleared.
    pub sequence: u64,
    /// The TCP connection it came on; equal numbers mean a reused one.
    pub connection: u64,
    pub vendor: String,
    pub method: String,
    /// With the vendor's prefix.
    pub path: String,
    /// Without the question mark.
    pub query: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// In the order of arrival, names in lower case, a repeated name beside its
    /// first; bytes of a value that are not UTF-8 are shown as U+FFFD.
    pub headers: Vec<(String, String)>,
    /// The body, byte by byte; in JSON `body_base64`, and `body_text` if it is UTF-8.
    #[serde(flatten, serialize_with = "body_twice")]
    pub body: Bytes,
    /// None until a status is sent: for good after a reset before the headers.
    pub status: Option<u16>,
    pub model: Option<String>,
    /// What `stream` said; None if it was absent or not a boolean.
    pub stream: Option<bool>,
    /// The fault that this request took from the vendor's script.
    pub fault: Option<FaultKind>,
    pub billed: Billed,
    /// Bytes of the response's body handed to the connection.
    pub bytes_sent: u64,
    /// None while the request is under way.
    pub outcome: Option<Outcome>,
    /// If the client left before the end, how long after the request's head
    /// came the connection noticed, in milliseconds.
    pub left_after_ms: Option<u64>,
}

/// Words that the vendor charges for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Billed {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was handed to the connection, refusals included.
    Complete,
    /// The client left first.
    ClientGone,
    /// A scripted fault took the answer's place or cut it short.
    Fault(FaultKind),
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Complete => formatter.write_str("complete"),
            Outcome::ClientGone => formatter.write_str("client_gone"),
            Outcome::Fault(kind) => write!(formatter, "fault:{kind}"),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A body that is not UTF-8 has no text; its bytes are there all the same.
fn body_twice<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        body_base64: String,
        body_text: Option<&'a str>,
    }
    Body { body_base64: base64::encode(body), body_text: str::from_utf8(body).ok() }.serialize(serializer)
}

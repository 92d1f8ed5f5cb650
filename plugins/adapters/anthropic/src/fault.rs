//! What an error of Anthropic's means: whose fault it is, and when to come again.

use serde::Deserialize;
use sluice_plugin::adapter::{Failure, Header, Verdict, classify_status};

/// Characters of the vendor's message that the client is told at most.
const MESSAGE_CHARS_MAX: usize = 1000;

/// Stands for the status of an error inside of a 200: it comes when the request was found good,
/// so that one of unknown type is the vendor's own.
const INSIDE_ANSWER: u16 = 500;

/// `{"type":"error","error":{"type":"…","message":"…"}}`
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    error: Reported,
}

#[derive(Deserialize)]
struct Reported {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

/// What an answer with this status means.
pub fn classify(status: u16, headers: &[Header], body: &[u8]) -> Verdict {
    let verdict = match read(body) {
        Some(error) => error.verdict(status),
        None => classify_status(status),
    };
    Verdict { retry_after_ms: retry_after_ms(headers), ..verdict }
}

/// The verdict of an error that stands where an answer or an event was due; None where none does.
pub fn envelope(body: &[u8]) -> Option<Verdict> {
    read(body).map(|error| error.verdict(INSIDE_ANSWER))
}

fn read(body: &[u8]) -> Option<Reported> {
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    (envelope.kind == "error").then_some(envelope.error)
}

impl Reported {
    fn verdict(self, status: u16) -> Verdict {
        let kind = match self.kind.as_str() {
            "rate_limit_error" => Failure::Throttled,
            "overloaded_error" | "api_error" | "timeout_error" => Failure::Transient,
            "authentication_error" | "permission_error" | "billing_error" => Failure::Credential,
            "invalid_request_error" => self.invalid_request(),
            "not_found_error" | "request_too_large" => Failure::Caller,
            _ => classify_status(status).kind,
        };
        let message = self.message.chars().take(MESSAGE_CHARS_MAX).collect();
        Verdict { kind, retry_after_ms: None, message }
    }

    /// Anthropic has one type for three things; only the text tells them apart.
    fn invalid_request(&self) -> Failure {
        let message = self.message.to_ascii_lowercase();
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        if says(&["prompt is too long", "exceed context limit"]) {
            Failure::ContextLength
        } else if says(&["credit balance is too low", "specified api usage limits"]) {
            // The account's, not the caller's.
            Failure::Credential
        } else {
            Failure::Caller
        }
    }
}

/// Anthropic gives whole seconds.
fn retry_after_ms(headers: &[Header]) -> Option<u32> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("retry-after"))?;
    let seconds: u32 = header.value.trim().parse().ok()?;
    Some(seconds.saturating_mul(1000))
}

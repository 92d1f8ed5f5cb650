//! How a call to the market fails, by what is to be done about it.

use std::fmt;
use std::time::Duration;

use super::wire::printable;

/// Characters of what the market says that are repeated.
const DETAIL_CHARS_MAX: usize = 300;

/// Problems of a refused form that are repeated.
const PROBLEMS_MAX: usize = 4;

/// Secrets shorter than this are not looked for: taking them out would spoil the text.
const SECRET_CHARS_MIN: usize = 4;

/// Why a call has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MarketError {
    /// No connection, or it ended in the middle. What was asked for may have been done.
    #[error("the market cannot be reached ({why})")]
    Unreachable { why: String },
    /// No answer in time. What was asked for may have been done.
    #[error("the market has not answered in time")]
    Timeout,
    /// The credential is not accepted (401).
    #[error("the market does not accept the credential{}", after(.detail))]
    Unauthorized { detail: Detail },
    /// There is no money, or the account may not (402, 403, or the words say so).
    #[error("the market refuses ({status}){}", after(.detail))]
    Balance { status: u16, detail: Detail },
    /// The request is refused; the same again would be too.
    #[error("the market refuses ({status}){}", after(.detail))]
    Refused { status: u16, detail: Detail },
    /// Too many requests (429).
    #[error("the market asks to wait{}", retry_after.map_or_else(String::new, |wait| format!(" for {} s", wait.as_secs())))]
    Throttled { retry_after: Option<Duration> },
    /// The market fails (5xx).
    #[error("the market fails ({status})")]
    Server { status: u16 },
    /// An answer that the contract does not have.
    #[error("the market's answer is not what it should be: {why}")]
    Garbage { why: &'static str },
}

/// What the market says of a refusal: one printable line, without the secrets that were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail(String);

impl MarketError {
    /// What an answer with another status than 2xx means. `secrets` were sent, and are not repeated.
    pub(super) fn of(
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
        secrets: &[&str],
    ) -> MarketError {
        let detail = || Detail::read(body, secrets);
        match status {
            401 => MarketError::Unauthorized { detail: detail() },
            402 | 403 => MarketError::Balance { status, detail: detail() },
            408 => MarketError::Timeout,
            429 => MarketError::Throttled { retry_after },
            400..=499 => {
                let detail = detail();
                match detail.is_of_money() {
                    true => MarketError::Balance { status, detail },
                    false => MarketError::Refused { status, detail },
                }
            }
            500..=599 => MarketError::Server { status },
            300..=399 => MarketError::Garbage { why: "it leads elsewhere, where no credential is sent" },
            _ => MarketError::Garbage { why: "it has a status that means nothing" },
        }
    }

    /// One word for it, for labels and the audit.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            MarketError::Unreachable { .. } => "unreachable",
            MarketError::Timeout => "timeout",
            MarketError::Unauthorized { .. } => "unauthorized",
            MarketError::Balance { .. } => "balance",
            MarketError::Refused { .. } => "refused",
            MarketError::Throttled { .. } => "throttled",
            MarketError::Server { .. } => "server",
            MarketError::Garbage { .. } => "garbage",
        }
    }
}

impl Detail {
    /// Of `{"detail": "..."}`, or of the list that says what is wrong with a form. Nothing else of a body
    /// is repeated: `input` beside a problem is what was sent.
    pub(super) fn read(body: &[u8], secrets: &[&str]) -> Detail {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = match &body["detail"] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(problems) => {
                let said: Vec<String> = problems.iter().take(PROBLEMS_MAX).filter_map(problem).collect();
                said.join("; ")
            }
            _ => String::new(),
        };
        Detail(printable(&without(text, secrets), DETAIL_CHARS_MAX))
    }

    /// Whether it speaks of money that is not there.
    fn is_of_money(&self) -> bool {
        let text = self.0.to_ascii_lowercase();
        ["balance", "funds", "insufficient credit"].iter().any(|word| text.contains(word))
    }

    /// The line; empty where nothing was said.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn after(detail: &Detail) -> String {
    if detail.as_str().is_empty() { String::new() } else { format!(": {detail}") }
}

/// `username: field required`.
fn problem(problem: &serde_json::Value) -> Option<String> {
    let said = problem["msg"].as_str()?;
    let place = problem["loc"].as_array().and_then(|place| place.last()?.as_str());
    Some(place.map_or_else(|| said.to_owned(), |place| format!("{place}: {said}")))
}

/// The longest first: one may be a part of another.
fn without(mut text: String, secrets: &[&str]) -> String {
    let mut secrets = secrets.to_vec();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_CHARS_MIN) {
        text = text.replace(secret, "…");
    }
    text
}

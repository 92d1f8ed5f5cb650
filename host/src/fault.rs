//! How an attempt at a vendor fails: its kind, its class, and what of it the client may see.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sluice_core::breaker::Weight;
use sluice_core::fault::FaultClass;
use sluice_core::settle::End;

use crate::routes::Upstream;
use crate::signer;

/// Characters of a vendor's message that reach the client.
const MESSAGE_CHARS_MAX: usize = 1000;

/// A timer of an attempt, as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    Connect,
    Headers,
    FirstContent,
    Idle,
    Total,
    /// The model's own, over all attempts.
    Deadline,
    /// The same, where others had used most of it up.
    Remainder,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Unreachable,
    Timeout(Timer),
    /// The connection ended before an answer began.
    HungUp,
    /// It ended in the middle of one.
    Broken,
    /// The answer ended well, but is not whole.
    CutShort,
    /// It wants us to go elsewhere; the gateway goes only where the operator said.
    Redirected,
    /// It does not take the operator's credential; none: it was not asked.
    Credential {
        status: Option<u16>,
    },
    /// It does not allow this request: by the credential, or by what is in it.
    Forbidden,
    /// What it sent is no answer.
    Malformed,
    /// It sent nothing at all.
    Empty,
    /// An error under a good status, in the vendor's words.
    Inside {
        class: FaultClass,
        message: String,
    },
    /// Any other status, as the adapter or the status itself says.
    Status {
        class: FaultClass,
        status: u16,
    },
    /// The adapter failed.
    Plugin {
        plugin: String,
        /// It is on probation, and the version before may do better.
        replaceable: bool,
    },
    /// More streams are being mapped than there is room for.
    NoRoom,
    /// It has said more than was paid for.
    OverLimit,
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) retry_after: Option<Duration>,
    /// The vendor's own answer, with secrets taken out.
    pub(crate) said: Option<Box<Said>>,
}

/// An answer that can be passed on.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Timer {
    pub(crate) fn code(self) -> &'static str {
        match self {
            Timer::Connect => "timeout_connect",
            Timer::Headers => "timeout_headers",
            Timer::FirstContent => "timeout_first_content",
            Timer::Idle => "timeout_idle",
            Timer::Total => "timeout_total",
            Timer::Deadline | Timer::Remainder => "timeout_deadline",
        }
    }

    /// What it waited for, and where it is set.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Timer::Connect => "took no connection in time (timeouts.connect)",
            Timer::Headers => "did not begin to answer in time (timeouts.headers)",
            Timer::FirstContent => "sent no content in time (timeouts.first_content)",
            Timer::Idle => "fell silent in the middle of its answer (timeouts.idle)",
            Timer::Total => "did not end its answer in time (timeouts.total)",
            Timer::Deadline | Timer::Remainder => {
                "did not answer before the request's deadline (the model's deadline)"
            }
        }
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Fault {
        Fault { kind, retry_after: None, said: None }
    }
}

impl Upstream {
    /// What an error inside an answer is. What a vendor says of the operator's account is not for
    /// clients.
    pub(crate) fn says(&self, class: FaultClass, message: &str) -> FaultKind {
        if class == FaultClass::Credential {
            // It took the credential, or it would not have begun a good answer.
            return FaultKind::Forbidden;
        }
        let message = signer::scrub(message.as_bytes(), &self.secrets);
        let message = String::from_utf8_lossy(&message).chars().take(MESSAGE_CHARS_MAX).collect();
        FaultKind::Inside { class, message }
    }
}

impl FaultKind {
    /// What the breaker makes of it. Who was asked late is not to blame for being late.
    pub(crate) fn weight(&self) -> Weight {
        match self {
            FaultKind::Timeout(Timer::Remainder) => Weight::Neither,
            FaultKind::Unreachable
            | FaultKind::Timeout(_)
            | FaultKind::HungUp
            | FaultKind::Broken
            | FaultKind::CutShort
            | FaultKind::Redirected
            | FaultKind::Credential { .. }
            | FaultKind::Forbidden
            | FaultKind::Malformed
            | FaultKind::Empty
            | FaultKind::Inside { .. }
            | FaultKind::Status { .. }
            | FaultKind::Plugin { .. }
            | FaultKind::NoRoom
            | FaultKind::OverLimit => self.class().weight(),
        }
    }

    pub(crate) fn class(&self) -> FaultClass {
        match self {
            FaultKind::Unreachable
            | FaultKind::Timeout(_)
            | FaultKind::HungUp
            | FaultKind::Broken
            | FaultKind::CutShort
            | FaultKind::Redirected
            | FaultKind::Malformed
            | FaultKind::Empty
            | FaultKind::OverLimit => FaultClass::Provider,
            FaultKind::Credential { .. } | FaultKind::Forbidden => FaultClass::Credential,
            FaultKind::Inside { class, .. } | FaultKind::Status { class, .. } => *class,
            FaultKind::Plugin { .. } => FaultClass::Plugin,
            FaultKind::NoRoom => FaultClass::Policy,
        }
    }

    /// Whether another candidate is asked: it might not share the fault. A model that one vendor does
    /// not have, another may have.
    pub(crate) fn fails_over(&self) -> bool {
        match self {
            FaultKind::NoRoom | FaultKind::Status { status: 404 | 405 | 410, .. } => true,
            FaultKind::Unreachable
            | FaultKind::Timeout(_)
            | FaultKind::HungUp
            | FaultKind::Broken
            | FaultKind::CutShort
            | FaultKind::Redirected
            | FaultKind::Credential { .. }
            | FaultKind::Forbidden
            | FaultKind::Malformed
            | FaultKind::Empty
            | FaultKind::Inside { .. }
            | FaultKind::Status { .. }
            | FaultKind::Plugin { .. }
            | FaultKind::OverLimit => self.class().fails_over(),
        }
    }

    /// Whether the same target may be asked again: it did not begin to answer, or says itself that it
    /// was a bad moment. What was silent for long, broke off what it had begun, or answered nonsense
    /// would do so again, and be paid again.
    pub(crate) fn repeats(&self) -> bool {
        match self {
            FaultKind::Unreachable | FaultKind::HungUp | FaultKind::Empty => true,
            FaultKind::Inside { class, .. } | FaultKind::Status { class, .. } => {
                matches!(class, FaultClass::Provider | FaultClass::Throttled)
            }
            FaultKind::Timeout(timer) => *timer == Timer::Connect,
            FaultKind::Broken
            | FaultKind::CutShort
            | FaultKind::Redirected
            | FaultKind::Credential { .. }
            | FaultKind::Forbidden
            | FaultKind::Malformed
            | FaultKind::Plugin { .. }
            | FaultKind::NoRoom
            | FaultKind::OverLimit => false,
        }
    }

    /// What a vendor's bill can have of an attempt that failed so before its content: nothing, where
    /// it was not reached, or has said that it will not serve.
    pub(crate) fn end(&self) -> End {
        match self {
            FaultKind::Status { status, .. } | FaultKind::Credential { status: Some(status) }
                if !says_unserved(*status) =>
            {
                End::Broken
            }
            FaultKind::Unreachable
            | FaultKind::Timeout(Timer::Connect)
            | FaultKind::Redirected
            | FaultKind::Credential { .. }
            | FaultKind::Forbidden
            | FaultKind::Inside { .. }
            | FaultKind::Status { .. }
            | FaultKind::NoRoom => End::Unserved,
            FaultKind::Timeout(_)
            | FaultKind::HungUp
            | FaultKind::Broken
            | FaultKind::CutShort
            | FaultKind::Malformed
            | FaultKind::Empty
            | FaultKind::Plugin { .. }
            | FaultKind::OverLimit => End::Broken,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            FaultKind::Unreachable => "upstream_unreachable",
            FaultKind::Timeout(timer) => timer.code(),
            FaultKind::HungUp | FaultKind::Broken => "upstream_broken",
            FaultKind::CutShort => "upstream_cut_short",
            FaultKind::Redirected => "upstream_redirected",
            FaultKind::Credential { .. } | FaultKind::Forbidden => "upstream_refused_credential",
            FaultKind::Malformed => "upstream_malformed",
            FaultKind::Empty => "upstream_empty",
            FaultKind::Inside { .. } => "upstream_error",
            FaultKind::Status { class: FaultClass::Throttled, .. } => "upstream_throttled",
            FaultKind::Status { .. } => "upstream_error",
            FaultKind::Plugin { .. } => "plugin_fault",
            FaultKind::NoRoom => "no_room",
            FaultKind::OverLimit => "upstream_over_limit",
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            FaultKind::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            FaultKind::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            FaultKind::Inside { class, .. } => match class {
                FaultClass::Caller => StatusCode::BAD_REQUEST,
                FaultClass::Throttled => StatusCode::TOO_MANY_REQUESTS,
                FaultClass::Policy | FaultClass::Provider | FaultClass::Credential | FaultClass::Plugin => {
                    StatusCode::BAD_GATEWAY
                }
            },
            FaultKind::Status { class: FaultClass::Caller | FaultClass::Throttled, status } => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY)
            }
            FaultKind::Unreachable
            | FaultKind::HungUp
            | FaultKind::Broken
            | FaultKind::CutShort
            | FaultKind::Redirected
            | FaultKind::Credential { .. }
            | FaultKind::Forbidden
            | FaultKind::Malformed
            | FaultKind::Empty
            | FaultKind::Status { .. }
            | FaultKind::Plugin { .. }
            | FaultKind::OverLimit => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the upstream did, to stand behind its name.
    pub(crate) fn sentence(&self) -> String {
        match self {
            FaultKind::Unreachable => "cannot be reached".into(),
            FaultKind::Timeout(timer) => timer.sentence().into(),
            FaultKind::HungUp => "hung up without an answer".into(),
            FaultKind::Broken => "broke off its answer".into(),
            FaultKind::CutShort => "ended its answer before it was complete".into(),
            FaultKind::Redirected => {
                "answered with a redirect, which is not followed; its base_url needs a correction".into()
            }
            FaultKind::Credential { .. } => {
                "does not take the operator's credential, or has no credit for it".into()
            }
            FaultKind::Forbidden => "does not allow this with the operator's credential".into(),
            FaultKind::Malformed => "sent what is no answer".into(),
            FaultKind::Empty => "sent nothing".into(),
            FaultKind::Inside { message, .. } => format!("says: {message}"),
            FaultKind::Status { status, .. } => format!("answered {status}"),
            FaultKind::Plugin { plugin, .. } => format!(
                "was not understood: the adapter {plugin} failed; the operator finds the cause at /admin/v1/plugins and in the log"
            ),
            FaultKind::NoRoom => "cannot be asked now: too many streams are being mapped".into(),
            FaultKind::OverLimit => {
                "said more than the output limit that it was sent, and was cut off".into()
            }
        }
    }
}

/// Whether a status says that nothing was made, and so nothing is billed. A vendor's own refusals do
/// (4xx, 503, 529), and so does its own failure: a 500 takes the answer's place. Others come from a
/// proxy in front of it that gave up waiting (408, 499, 504, 524) or got no whole answer (502, 520):
/// the model behind may have worked, and its work may be billed. Of Cloudflare's, 521, 523, 525 and
/// 526 say that no connection stood. What is not known is nobody's word.
fn says_unserved(status: u16) -> bool {
    match status {
        408 | 499 => false,
        400..=499 => true,
        500 | 501 | 503 | 505 | 521 | 523 | 525 | 526 | 529 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_so_has_not_served() {
        for (status, end) in [
            (400, End::Unserved),
            (404, End::Unserved),
            (408, End::Broken),
            (429, End::Unserved),
            (499, End::Broken),
            (500, End::Unserved),
            (502, End::Broken),
            (503, End::Unserved),
            (504, End::Broken),
            (520, End::Broken),
            (522, End::Broken),
            (524, End::Broken),
            (529, End::Unserved),
            (599, End::Broken),
        ] {
            // The adapter may call it what it likes.
            for class in [FaultClass::Provider, FaultClass::Throttled, FaultClass::Caller] {
                assert_eq!(FaultKind::Status { class, status }.end(), end, "{status}");
            }
            assert_eq!(FaultKind::Credential { status: Some(status) }.end(), end, "{status}");
        }
        assert_eq!(FaultKind::Unreachable.end(), End::Unserved);
        assert_eq!(FaultKind::Credential { status: None }.end(), End::Unserved);
    }
}

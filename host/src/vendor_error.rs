//! What a vendor's bad status means, and what of it the client gets to see.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sluice_core::fault::FaultClass;
use sluice_core::plan::ResponsePlan;
use sluice_runtime::{CallError, Verdict};
use tokio::time::Instant;

use crate::answer::Reading;
use crate::fault::{Fault, FaultKind, Said};
use crate::planning::Planner;

/// Bytes of a vendor's error that reach the client: some repeat the request in it.
const ERROR_BYTES_MAX: usize = 1024 * 1024;

/// For an error's body: its status has said the most already.
const BODY_MAX: Duration = Duration::from_secs(5);

/// What `reading`'s attempt has failed with.
pub(crate) async fn read(
    reading: &Reading<'_>,
    head: &Parts,
    body: Incoming,
    planner: &mut Planner,
) -> Fault {
    let until = reading.deadline.0.min(Instant::now() + BODY_MAX);
    let (text, is_whole) = collected(body, until).await;
    let status = head.status.as_u16();
    let shown = reading.shown(head, &text);
    let said = is_whole.then(|| Said {
        status: head.status,
        headers: reading.passed_headers(&head.headers),
        body: Bytes::from(shown.body.clone()),
    });
    let verdict = match planner.adapter().classify(&reading.context(), shown) {
        Ok(verdict) => Some(verdict),
        Err(error) => {
            if matches!(error, CallError::Fault(..)) {
                planner.failed(&error);
            }
            None
        }
    };
    if !was_understood(head.status) {
        planner.misplanned(reading.call);
    }
    let class = verdict.as_ref().map_or_else(|| FaultClass::of_status(status), |verdict| verdict.class);
    if class == FaultClass::Credential {
        // What the vendor says of the operator's account is not for clients.
        return FaultKind::Credential { status: Some(status) }.into();
    }
    let retry_after = verdict.as_ref().and_then(|verdict| verdict.retry_after);
    let said = match reading.plan.response {
        ResponsePlan::SameWire => said,
        ResponsePlan::Mapped => {
            Some(in_openai_words(head.status, reading.passed_headers(&head.headers), verdict))
        }
    };
    Fault {
        kind: FaultKind::Status { class, status },
        retry_after: retry_after.or_else(|| retry_after_of(&head.headers)),
        said: said.map(Box::new),
    }
}

/// What comes of a body until then, and whether that is all of it.
async fn collected(mut body: Incoming, until: Instant) -> (Bytes, bool) {
    let mut text = BytesMut::new();
    while text.len() <= ERROR_BYTES_MAX {
        match tokio::time::timeout_at(until, body.frame()).await {
            Ok(None) => return (text.freeze(), true),
            Ok(Some(Ok(frame))) => text.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(_elapsed) => break,
            Ok(Some(Err(_broken))) => break,
        }
    }
    (text.freeze(), false)
}

/// Whether the vendor took the request for one: if not, the adapter may have made it wrong.
fn was_understood(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// A vendor's error for a client that speaks another wire.
fn in_openai_words(status: StatusCode, mut headers: HeaderMap, verdict: Option<Verdict>) -> Said {
    let code = match &verdict {
        Some(verdict) if verdict.context_length => "context_length_exceeded",
        Some(_) | None if status == StatusCode::TOO_MANY_REQUESTS => "rate_limit_exceeded",
        Some(_) | None => "upstream_error",
    };
    let message = verdict.map_or_else(|| format!("the vendor answered {status}"), |verdict| verdict.message);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    let body = crate::refusal::envelope(&message, kind, None, code);
    Said { status, headers, body }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after_of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
        }
    }
}

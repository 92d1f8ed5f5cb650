//! Sends a planned answer, spoilt by the fault that is due.

use std::future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::body::{AnswerBody, Ending, Piece, cut};
use crate::books::Entry;
use crate::connection::ResetSwitch;
use crate::refusal::Refusal;
use crate::row::Outcome;
use crate::script::{Fault, FaultKind, Moment};
use crate::vendor::{Plan, PlanContent};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sends what was planned, or what the fault makes of it. `stream_chunk_bytes`
/// is the script's standing wish; a split goes before it.
pub(crate) async fn deliver(
    plan: Plan,
    fault: Option<Fault>,
    stream_chunk_bytes: Option<NonZeroUsize>,
    mut entry: Entry,
    switch: &Arc<ResetSwitch>,
) -> Response<AnswerBody> {
    if let Some(fault) = &fault {
        entry.takes(fault.kind());
    }
    let chunk_bytes = match plan.content {
        PlanContent::Stream(_) => stream_chunk_bytes,
        PlanContent::Whole { .. } => None,
    };
    let ending = Ending::Whole(Outcome::Complete);
    match fault {
        None => send(plan, chunk_bytes, ending, entry),
        Some(Fault::Status { status, headers, body, times: _ }) => {
            let ending = Ending::Whole(Outcome::Fault(FaultKind::Status));
            send(scripted(status, headers, body), None, ending, entry)
        }
        Some(Fault::Delay { ms, times: _ }) => {
            tokio::time::sleep(Duration::from_millis(ms.into())).await;
            send(plan, chunk_bytes, ending, entry)
        }
        Some(Fault::Split { bytes, times: _ }) => send(plan, Some(bytes), ending, entry),
        Some(Fault::Hang { at, events, times: _ }) => {
            entry.expects(Outcome::Fault(FaultKind::Hang));
            match at {
                Moment::Headers => silence(entry).await,
                Moment::Body => send(plan.broken_off(events), chunk_bytes, Ending::Silence, entry),
            }
        }
        Some(Fault::Reset { at, events, times: _ }) => {
            entry.expects(Outcome::Fault(FaultKind::Reset));
            match at {
                Moment::Headers => {
                    switch.reset();
                    silence(entry).await
                }
                Moment::Body => {
                    let ending = Ending::Reset(Arc::clone(switch));
                    send(plan.broken_off(events), chunk_bytes, ending, entry)
                }
            }
        }
    }
}

/// Holds the request until the connection drops it.
async fn silence(_entry: Entry) -> Response<AnswerBody> {
    future::pending().await
}

fn send(plan: Plan, chunk_bytes: Option<NonZeroUsize>, ending: Ending, entry: Entry) -> Response<AnswerBody> {
    let Plan { status, headers, content, billed_first } = plan;
    entry.answers(status);
    entry.adds(billed_first, 0);
    let request_id = format!("req_{:016x}", entry.sequence());
    let (pieces, length) = match content {
        PlanContent::Whole { bytes, length } => (vec![Piece { bytes, tokens: 0 }], Some(length)),
        PlanContent::Stream(pieces) => (pieces, None),
    };
    let body = match chunk_bytes {
        Some(bytes) => AnswerBody::flushed_each(cut(pieces, bytes), ending, entry),
        None => AnswerBody::new(pieces, length, ending, entry),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    if let Ok(request_id) = HeaderValue::try_from(request_id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(request_id);
    }
    response
}

/// What a status fault answers: JSON, unless its headers say otherwise.
fn scripted(status: StatusCode, mut headers: Vec<(HeaderName, HeaderValue)>, body: Option<String>) -> Plan {
    let mut plan = Plan::from(Refusal::scripted(status));
    if let Some(body) = body {
        plan.content = PlanContent::whole(body.into());
    }
    if headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
        plan.headers.clear();
    }
    plan.headers.append(&mut headers);
    plan
}

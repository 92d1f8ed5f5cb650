//! Sends a planned answer, spoilt by the fault that is due.

use std::future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::body::{AnswerBody, Ending, Pace, Piece, cut};
use crate::books::Entry;
use crate::connection::ResetSwitch;
use crate::fault::{Fault, Moment};
use crate::plan::{Plan, PlanContent};
use crate::refusal::Refusal;
use crate::row::Outcome;
use crate::script::SseStyle;
use crate::sse;
use crate::wire::Wire;

/// Chunks of a whole answer that drips: 10.
const DRIPS: usize = 10;

/// The status whose error a vendor has after it said 200: overloaded.
const BELATED: u16 = 529;

/// One answer on its way out.
pub(crate) struct Delivery<'a> {
    pub(crate) wire: Wire,
    pub(crate) style: &'a SseStyle,
    pub(crate) switch: &'a Arc<ResetSwitch>,
    pub(crate) entry: Entry,
}

/// How bytes are portioned.
enum Portions {
    /// As the script's style wants it.
    Usual,
    Bytes(NonZeroUsize),
    Drips(Duration),
}

// === impl Delivery ===

impl Delivery<'_> {
    /// Sends what was planned, or why it is refused.
    pub(crate) async fn send(
        self,
        plan: Result<Plan, Refusal>,
        fault: Option<Fault>,
    ) -> Response<AnswerBody> {
        let plan = plan.unwrap_or_else(|refusal| self.refused(&refusal));
        match fault {
            None => self.respond(plan, Portions::Usual, Ending::Whole(Outcome::Complete)),
            Some(fault) => self.spoil(plan, fault).await,
        }
    }

    async fn spoil(mut self, plan: Plan, fault: Fault) -> Response<AnswerBody> {
        let kind = fault.kind();
        self.entry.takes(kind);
        let complete = Ending::Whole(Outcome::Complete);
        let spoilt = Ending::Whole(Outcome::Fault(kind));
        match fault {
            Fault::Status { status, headers, body, times: _ } => {
                let plan = self.scripted(status, headers, body);
                self.respond(plan, Portions::Usual, spoilt)
            }
            Fault::Delay { ms, times: _ } => {
                tokio::time::sleep(Duration::from_millis(ms.into())).await;
                self.respond(plan, Portions::Usual, complete)
            }
            Fault::Split { bytes, times: _ } => self.respond(plan, Portions::Bytes(bytes), complete),
            Fault::Drip { ms, times: _ } => {
                self.respond(plan, Portions::Drips(Duration::from_millis(ms.into())), complete)
            }
            Fault::Hang { at, events, times: _ } => {
                self.entry.expects(Outcome::Fault(kind));
                match at {
                    Moment::Headers => self.silence().await,
                    Moment::Body => self.respond(plan.broken_off(events), Portions::Usual, Ending::Silence),
                }
            }
            Fault::Reset { at, events, times: _ } => {
                self.entry.expects(Outcome::Fault(kind));
                let switch = Arc::clone(self.switch);
                match at {
                    Moment::Headers => {
                        switch.reset();
                        self.silence().await
                    }
                    Moment::Body => {
                        self.respond(plan.broken_off(events), Portions::Usual, Ending::Reset(switch))
                    }
                }
            }
            Fault::MalformedJson { events, times: _ } => {
                self.respond(plan.with_broken_json(events), Portions::Usual, spoilt)
            }
            Fault::MalformedSse { events, times: _ } => {
                self.respond(plan.with_garbage(events), Portions::Usual, spoilt)
            }
            Fault::ErrorIn200 { events, error_type, times: _ } => {
                let plan = self.failed(plan, events, error_type);
                self.respond(plan, Portions::Usual, spoilt)
            }
            Fault::Empty { times: _ } => self.respond(plan.emptied(), Portions::Usual, spoilt),
            Fault::Cut { events, times: _ } => self.respond(plan.cut_short(events), Portions::Usual, spoilt),
            Fault::IgnoreLimit { ms: ms @ 1.., .. } => {
                self.respond(plan, Portions::Drips(Duration::from_millis(ms.into())), complete)
            }
            // What these change was said differently in the first place.
            Fault::Unstreamed { .. }
            | Fault::NoUsage { .. }
            | Fault::Wait { .. }
            | Fault::WrongUsage { .. }
            | Fault::IgnoreLimit { .. }
            | Fault::HugeFrame { .. } => self.respond(plan, Portions::Usual, complete),
        }
    }

    /// Holds the request until the connection drops it.
    async fn silence(self) -> Response<AnswerBody> {
        let _entry = self.entry;
        future::pending().await
    }

    fn respond(self, plan: Plan, portions: Portions, ending: Ending) -> Response<AnswerBody> {
        let request_id = self.request_id();
        let Plan { status, headers, content, billed_first } = plan;
        self.entry.answers(status);
        self.entry.adds(billed_first, 0);
        let (pieces, length, usual) = match content {
            PlanContent::Whole { bytes, length } => (vec![Piece { bytes, tokens: 0 }], Some(length), None),
            PlanContent::Stream(events) => (sse::write(&events, self.style), None, self.style.chunk_bytes),
        };
        let (pieces, length, pace) = match portions {
            Portions::Usual => match usual {
                Some(bytes) => (cut(pieces, bytes), None, Pace::ALONE),
                None => (pieces, length, Pace::Together),
            },
            Portions::Bytes(bytes) => (cut(pieces, bytes), None, Pace::ALONE),
            Portions::Drips(wait) => (drips(pieces), length, Pace::dripping(wait)),
        };
        let body = AnswerBody::new(pieces, length, pace, ending, self.entry);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        if let Ok(request_id) = HeaderValue::try_from(request_id) {
            response.headers_mut().entry(self.wire.request_id_header()).or_insert(request_id);
        }
        response
    }

    fn refused(&self, refusal: &Refusal) -> Plan {
        Plan::json(refusal.status, &self.wire.error(refusal, &self.request_id()))
    }

    /// What a status fault answers: JSON, unless its headers say otherwise.
    fn scripted(
        &self,
        status: StatusCode,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        body: Option<String>,
    ) -> Plan {
        let mut plan = self.refused(&Refusal::scripted(status));
        if let Some(body) = body {
            plan.content = PlanContent::whole(body.into());
        }
        if headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            plan.headers.clear();
        }
        plan.headers.append(&mut headers);
        plan
    }

    /// The plan with an error where the rest would be.
    fn failed(&self, plan: Plan, events_before: usize, error_type: Option<String>) -> Plan {
        let status = StatusCode::from_u16(BELATED).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refusal = Refusal::belated(error_type, status);
        let request_id = self.request_id();
        let event = self.wire.error_event(&refusal, &request_id);
        plan.with_error(events_before, event, &self.wire.error(&refusal, &request_id))
    }

    fn request_id(&self) -> String {
        format!("req_{:016x}", self.entry.sequence())
    }
}

/// Events as they are; a whole answer in some ten pieces.
fn drips(pieces: Vec<Piece>) -> Vec<Piece> {
    match &pieces[..] {
        [only] => match NonZeroUsize::new(only.bytes.len().div_ceil(DRIPS)) {
            Some(bytes) => cut(pieces, bytes),
            None => pieces,
        },
        _ => pieces,
    }
}

//! Reads a vendor's answer up to where it can be trusted to be one, and hands it on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sluice_core::chat::{Whole, begins_as_object};
use sluice_core::codes::{Endpoint, Surface};
use sluice_core::meter::{Meter, Overheard};
use sluice_core::plan::{CallPlan, ResponsePlan};
use sluice_runtime::{AnswerContext, Place, VendorAnswer};
use tokio::time::Instant;

use crate::call::SharedCall;
use crate::fault::{Fault, FaultKind, Timer};
use crate::frames::{End, Frames};
use crate::metering::Metered;
use crate::planning::Planner;
use crate::routes::Upstream;
use crate::signer;
use crate::stream::{Body, Client, Relay};
use crate::underway::Underway;
use crate::vendor_error;

/// Bytes of an answer that are held back until it shows what it is.
const PRELUDE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an answer that an adapter maps as a whole: half of what its memory holds.
const WHOLE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Headers of an answer, those of rates among them: a map that grows is made anew.
const HEADERS_TYPICAL: usize = 10;

/// What an answer is read with.
pub(crate) struct Reading<'a> {
    pub(crate) call: &'a SharedCall,
    pub(crate) upstream: &'a Arc<Upstream>,
    pub(crate) plan: &'a CallPlan,
    pub(crate) sent: Instant,
    /// The attempt's end at the latest, and by which timer.
    pub(crate) deadline: (Instant, Timer),
    pub(crate) client: &'a Client,
    /// The host has asked for the usage of a stream, the client has not.
    pub(crate) hides_usage: bool,
}

/// An answer's body, and what has been read of it.
struct Begun {
    first: Bytes,
    rest: Incoming,
}

/// What an answer to somebody who asked for a stream says that it is.
enum Kind {
    Events,
    /// JSON, or a page that is neither.
    Whole,
    /// Nothing of use.
    Unsaid,
}

impl Reading<'_> {
    /// The answer for the client, from its first content on.
    ///
    /// # Errors
    ///
    /// How the attempt failed; nothing has gone to the client.
    pub(crate) async fn read(
        &self,
        response: Response<Incoming>,
        mut attempt: Box<Underway>,
        mut planner: Planner,
        place: Option<Place>,
    ) -> Result<Response<Body>, (Fault, Box<Underway>)> {
        let (head, rest) = response.into_parts();
        if !head.status.is_success() {
            return Err((vendor_error::read(self, &head, rest, &mut planner).await, attempt));
        }
        let (begun, streams) = match self.begin(&head, rest).await {
            Ok(begun) => begun,
            Err(fault) => return Err((fault.into(), attempt)),
        };
        if streams {
            // Boxed: most answers are none, and would carry its room around.
            return Box::pin(self.stream(&head, begun, attempt, planner, place)).await;
        }
        let answer = match self.collect(begun, attempt.holds_money()).await {
            Err(fault) => Err(fault),
            Ok((text, None)) => self.whole(&head, text, &mut planner, &mut attempt),
            Ok((text, Some(rest))) => return Ok(self.long(&head, text, rest, attempt)),
        };
        match answer {
            Ok(answer) => {
                attempt.good();
                Ok(answer)
            }
            Err(fault) => Err((fault.into(), attempt)),
        }
    }

    /// Whether this is a stream; by its first bytes, where its head does not say.
    async fn begin(&self, head: &Parts, mut rest: Incoming) -> Result<(Begun, bool), FaultKind> {
        // It was asked for without: no client of ours could read it.
        let encoding = head.headers.get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(FaultKind::Malformed);
        }
        let mut first = BytesMut::new();
        let streams = self.call.shape.streaming
            && match Kind::of(&head.headers) {
                Kind::Events => true,
                Kind::Whole => false,
                Kind::Unsaid => {
                    while first.trim_ascii().is_empty() && first.len() <= PRELUDE_BYTES_MAX {
                        let Some(data) = self.next(&mut rest).await? else { break };
                        first.extend_from_slice(&data);
                    }
                    !begins_as_object(&first)
                }
            };
        Ok((Begun { first: first.freeze(), rest }, streams))
    }

    /// More of a body that is held back; none at its end.
    async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, FaultKind> {
        loop {
            let now = Instant::now();
            let (until, timer) = self.next_timer(now);
            if now >= until {
                return Err(FaultKind::Timeout(timer));
            }
            match tokio::time::timeout_at(until, body.frame()).await {
                Err(_elapsed) => return Err(FaultKind::Timeout(timer)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    tracing::debug!(upstream = self.upstream.name, %error, "the answer broke off");
                    return Err(FaultKind::Broken);
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The beginning of an answer that is no stream, and its rest where it is long and passes.
    /// What money is held for is read to its usage, however long it is.
    async fn collect(&self, begun: Begun, is_paid: bool) -> Result<(Bytes, Option<Incoming>), FaultKind> {
        let Begun { mut first, rest: mut body } = begun;
        let mapped = self.plan.response == ResponsePlan::Mapped;
        // Most answers come at once, and are not copied.
        let mut text = BytesMut::new();
        loop {
            let bytes = first.len().max(text.len());
            if mapped && bytes > WHOLE_BYTES_MAX {
                return Err(FaultKind::Malformed);
            }
            let whole = |text: BytesMut, first: Bytes| if text.is_empty() { first } else { text.freeze() };
            if !mapped && bytes > (if is_paid { WHOLE_BYTES_MAX } else { PRELUDE_BYTES_MAX }) {
                let text = whole(text, first);
                return if begins_as_object(&text) {
                    Ok((text, Some(body)))
                } else {
                    Err(FaultKind::Malformed)
                };
            }
            match self.next(&mut body).await? {
                None => return Ok((whole(text, first), None)),
                Some(data) if first.is_empty() => first = data,
                Some(data) => {
                    if text.is_empty() {
                        text.extend_from_slice(&first);
                    }
                    text.extend_from_slice(&data);
                }
            }
        }
    }

    /// An answer that has come whole.
    fn whole(
        &self,
        head: &Parts,
        text: Bytes,
        planner: &mut Planner,
        attempt: &mut Underway,
    ) -> Result<Response<Body>, FaultKind> {
        if text.is_empty() {
            return Err(FaultKind::Empty);
        }
        let mut meter = Meter::default();
        match self.plan.response {
            ResponsePlan::SameWire => {
                let whole = match attempt.is_measured() {
                    true => Whole::metered(&text, &mut meter),
                    false => Whole::read(&text),
                };
                // What it calls an error after it has said something, it may charge for.
                attempt.uses(&Metered { begun: meter.text_bytes() > 0, ..Metered::of(&meter, None) });
                match whole {
                    Whole::Completion => Ok(self.answer(head, Body::full(text))),
                    Whole::Malformed => Err(FaultKind::Malformed),
                    Whole::Error(inside) => Err(self.upstream.says(inside.class, &inside.message)),
                }
            }
            ResponsePlan::Mapped => {
                let mut overheard = Overheard::default();
                if attempt.is_measured() {
                    overheard.hear(&text);
                }
                let heard = Metered { overheard: overheard.floor(), ..Metered::default() };
                attempt.uses(&heard);
                let mapped = planner.adapter().whole(&self.context(), self.shown(head, &text));
                let mapped = mapped.map_err(|error| planner.failed(&error))?;
                meter.whole(&mapped.wire);
                let (overheard, begun) = (heard.overheard, meter.text_bytes() > 0);
                attempt.uses(&Metered { overheard, begun, ..Metered::of(&meter, mapped.usage) });
                if let Some(verdict) = mapped.fault {
                    return Err(self.upstream.says(verdict.class, &verdict.message));
                }
                let mut answer = Response::new(Body::full(mapped.wire.into()));
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(answer)
            }
        }
    }

    /// An answer that is too long to be looked at: it passes.
    fn long(&self, head: &Parts, text: Bytes, rest: Incoming, mut attempt: Box<Underway>) -> Response<Body> {
        attempt.first_content();
        let relay = Relay {
            frames: Frames::blind(rest, Arc::clone(self.upstream)),
            held: VecDeque::from([text]),
            ended: None,
            idle: self.upstream.timers.idle(self.call.shape.streaming),
            deadline: self.deadline,
            client: self.client.clone(),
            attempt,
        };
        self.answer(head, Body::relay(relay))
    }

    /// Holds the beginning of a stream back until there is content.
    async fn stream(
        &self,
        head: &Parts,
        begun: Begun,
        mut attempt: Box<Underway>,
        planner: Planner,
        place: Option<Place>,
    ) -> Result<Response<Body>, (Fault, Box<Underway>)> {
        let Begun { first, rest } = begun;
        let mut frames = match self.frames(rest, planner, place) {
            Ok(frames) => frames.metered(attempt.counts(), self.hides_usage),
            Err(fault) => return Err((fault.into(), attempt)),
        };
        let (mut held, mut bytes) = (VecDeque::new(), 0);
        let mut taken = frames.take(&first);
        let ended = loop {
            bytes += taken.bytes.iter().map(Bytes::len).sum::<usize>();
            held.append(&mut taken.bytes);
            attempt.uses(&frames.used());
            match taken.end {
                end if taken.content || bytes > PRELUDE_BYTES_MAX => break end,
                Some(End::Fault(fault)) => return Err((fault.into(), attempt)),
                // A vendor that has nothing to say, and says so.
                Some(End::Complete) => break Some(End::Complete),
                None => {}
            }
            let (until, timer) = self.next_timer(Instant::now());
            taken = frames.read(until, timer).await;
        };
        attempt.first_content();
        let relay = Relay {
            frames,
            held,
            ended,
            idle: self.upstream.timers.idle(true),
            deadline: self.deadline,
            client: self.client.clone(),
            attempt,
        };
        let mut answer = self.answer(head, Body::relay(relay));
        answer.headers_mut().insert(CONTENT_TYPE, event_stream(&head.headers));
        Ok(answer)
    }

    fn frames(
        &self,
        body: Incoming,
        mut planner: Planner,
        place: Option<Place>,
    ) -> Result<Frames, FaultKind> {
        let upstream = Arc::clone(self.upstream);
        match self.plan.response {
            ResponsePlan::SameWire => Ok(Frames::same_wire(body, upstream, self.call.choices)),
            ResponsePlan::Mapped => {
                let place = place.ok_or(FaultKind::NoRoom)?;
                match planner.adapter().mapper(&self.context(), place) {
                    Ok(mapper) => Ok(Frames::mapped(body, upstream, mapper, planner)),
                    Err(error) => Err(planner.failed(&error)),
                }
            }
        }
    }

    /// Which timer is next while nothing has gone to the client. A model that thinks before it speaks
    /// is silent: between two reads only a whole answer has a bound.
    fn next_timer(&self, now: Instant) -> (Instant, Timer) {
        let timers = &self.upstream.timers;
        let timer = match self.call.shape.streaming {
            true => (self.sent + timers.first_content, Timer::FirstContent),
            false => (now + timers.idle(false), Timer::Idle),
        };
        if timer.0 < self.deadline.0 { timer } else { self.deadline }
    }

    pub(crate) fn context(&self) -> AnswerContext {
        AnswerContext {
            request_id: self.call.request_id.clone(),
            model: self.call.shape.model.clone(),
            created_s: self.call.received_ms / 1000,
            surface: Surface::OpenAiChat.code(),
            endpoint: Endpoint::Chat.code(),
            streaming: self.call.shape.streaming,
            carry: self.plan.carry.clone(),
        }
    }

    /// What an adapter is shown of an answer.
    pub(crate) fn shown(&self, head: &Parts, text: &Bytes) -> VendorAnswer {
        let headers = self.passed_headers(&head.headers);
        let header = |(name, value): (&http::HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        VendorAnswer {
            status: head.status.as_u16(),
            headers: headers.iter().filter_map(header).collect(),
            body: signer::scrub(text, &self.upstream.secrets).into_owned(),
        }
    }

    fn answer(&self, head: &Parts, body: Body) -> Response<Body> {
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = self.passed_headers(&head.headers);
        answer
    }

    /// What a client needs of a vendor's head; the rest is between the vendor and the operator.
    pub(crate) fn passed_headers(&self, vendor: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(HEADERS_TYPICAL);
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            let value = vendor.get(&name);
            if let Some(value) =
                value.filter(|value| !signer::repeats(value.as_bytes(), &self.upstream.secrets))
            {
                headers.insert(name, value.clone());
            }
        }
        headers
    }
}

impl Kind {
    /// Some vendors leave the type out, or give one that every text has.
    fn of(headers: &HeaderMap) -> Kind {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "text/event-stream" => Kind::Events,
            "" | "text/plain" | "application/octet-stream" => Kind::Unsaid,
            _ => Kind::Whole,
        }
    }
}

/// The vendor's own words for it, if they are.
fn event_stream(vendor: &HeaderMap) -> HeaderValue {
    match (Kind::of(vendor), vendor.get(CONTENT_TYPE)) {
        (Kind::Events, Some(value)) => value.clone(),
        (Kind::Events | Kind::Whole | Kind::Unsaid, _) => HeaderValue::from_static("text/event-stream"),
    }
}

//! Reads a vendor's answer up to where it can be trusted to be one, and hands it on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sluice_core::chat::Whole;
use sluice_core::codes::{Endpoint, Surface};
use sluice_core::fault::FaultClass;
use sluice_core::plan::{CallPlan, ResponsePlan};
use sluice_runtime::{AnswerContext, Decided, VendorAnswer, Verdict, Versioned};
use tokio::time::Instant;

use crate::call::Call;
use crate::fault::{Fault, FaultKind, Said, Timer};
use crate::frames::{End, Frames, unmapped};
use crate::routes::Upstream;
use crate::signer;
use crate::stream::{Body, Relay, Underway};

/// Bytes of an answer that are held back until it shows what it is.
const PRELUDE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a vendor's error that reach the client.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an answer that an adapter maps as a whole: half of what its memory holds.
const WHOLE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What an answer is read with.
pub(crate) struct Reading<'a> {
    pub(crate) call: &'a Call,
    pub(crate) upstream: &'a Arc<Upstream>,
    pub(crate) plan: &'a CallPlan,
    pub(crate) sent: Instant,
    /// The attempt's end at the latest, and by which timer.
    pub(crate) deadline: (Instant, Timer),
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
        mut attempt: Underway,
    ) -> Result<Response<Body>, (Fault, Underway)> {
        let (head, body) = response.into_parts();
        let answer = if !head.status.is_success() {
            Err(self.error(&head, body).await)
        } else if self.call.shape.streaming && is_event_stream(&head.headers) {
            return self.stream(&head, body, attempt).await;
        } else {
            match self.collect(body).await {
                Err(fault) => Err(fault.into()),
                Ok((text, None)) => self.whole(&head, text).map_err(Fault::from),
                Ok((text, Some(rest))) => return Ok(self.long(&head, text, rest, attempt)),
            }
        };
        match answer {
            Ok(answer) => {
                attempt.good();
                Ok(answer)
            }
            Err(fault) => Err((fault, attempt)),
        }
    }

    /// The beginning of an answer that is no stream, and its rest where it is long and passes.
    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, Option<Incoming>), FaultKind> {
        let mapped = self.plan.response == ResponsePlan::Mapped;
        let mut text = BytesMut::new();
        loop {
            let (until, timer) = self.next_timer();
            match tokio::time::timeout_at(until, body.frame()).await {
                Err(_elapsed) => return Err(FaultKind::Timeout(timer)),
                Ok(None) => return Ok((text.freeze(), None)),
                Ok(Some(Err(error))) => {
                    tracing::debug!(upstream = self.upstream.name, %error, "the answer broke off");
                    return Err(FaultKind::Broken);
                }
                Ok(Some(Ok(frame))) => {
                    let Some(data) = frame.data_ref() else { continue };
                    text.extend_from_slice(data);
                }
            }
            if mapped && text.len() > WHOLE_BYTES_MAX {
                return Err(FaultKind::Malformed);
            }
            if !mapped && text.len() > PRELUDE_BYTES_MAX {
                return Ok((text.freeze(), Some(body)));
            }
        }
    }

    /// An answer that has come whole.
    fn whole(&self, head: &Parts, text: Bytes) -> Result<Response<Body>, FaultKind> {
        if text.is_empty() {
            return Err(FaultKind::Empty);
        }
        match self.plan.response {
            ResponsePlan::SameWire => match Whole::read(&text) {
                Whole::Completion => Ok(self.answer(head, Body::full(text))),
                Whole::Malformed => Err(FaultKind::Malformed),
                Whole::Error(inside) => Err(self.inside(inside.class, &inside.message)),
            },
            ResponsePlan::Mapped => {
                let context = self.context();
                let adapter = &self.upstream.adapter;
                let mapped = adapter.decide(|adapter| adapter.whole(&context, self.shown(head, &text)));
                let Decided { decision: mapped, .. } = mapped.map_err(|error| {
                    let plugin = &adapter.current().plugin().manifest().id;
                    tracing::debug!(request = self.call.request_id, plugin, %error, "the adapter did not map");
                    unmapped(plugin, &error)
                })?;
                if let Some(verdict) = mapped.fault {
                    return Err(self.inside(verdict.class, &verdict.message));
                }
                let mut answer = Response::new(Body::full(mapped.wire.into()));
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(answer)
            }
        }
    }

    /// An answer that is too long to be looked at: it passes.
    fn long(&self, head: &Parts, text: Bytes, rest: Incoming, mut attempt: Underway) -> Response<Body> {
        attempt.first_content();
        let relay = Relay {
            frames: Frames::blind(rest, Arc::clone(self.upstream)),
            held: VecDeque::from([text]),
            ended: None,
            idle: self.upstream.timers.idle(self.call.shape.streaming),
            deadline: self.deadline,
            attempt,
        };
        self.answer(head, Body::relay(relay))
    }

    /// Holds the beginning of a stream back until there is content.
    async fn stream(
        &self,
        head: &Parts,
        body: Incoming,
        mut attempt: Underway,
    ) -> Result<Response<Body>, (Fault, Underway)> {
        let mut frames = match self.frames(body) {
            Ok(frames) => frames,
            Err(fault) => return Err((fault.into(), attempt)),
        };
        let (mut held, mut bytes) = (VecDeque::new(), 0);
        let ended = loop {
            let (until, timer) = self.next_timer();
            let mut taken = frames.read(until, timer).await;
            bytes += taken.bytes.iter().map(Bytes::len).sum::<usize>();
            held.append(&mut taken.bytes);
            match taken.end {
                end if taken.content || bytes > PRELUDE_BYTES_MAX => break end,
                Some(End::Fault(fault)) => return Err((fault.into(), attempt)),
                // A vendor that has nothing to say, and says so.
                Some(End::Complete) => break Some(End::Complete),
                None => {}
            }
        };
        attempt.first_content();
        let idle = self.upstream.timers.idle(true);
        let relay = Relay { frames, held, ended, idle, deadline: self.deadline, attempt };
        let mut answer = self.answer(head, Body::relay(relay));
        if self.plan.response == ResponsePlan::Mapped {
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        }
        Ok(answer)
    }

    fn frames(&self, body: Incoming) -> Result<Frames, FaultKind> {
        let upstream = Arc::clone(self.upstream);
        if self.plan.response == ResponsePlan::SameWire {
            return Ok(Frames::same_wire(body, upstream));
        }
        let adapter = self.upstream.adapter.decide(|adapter| adapter.mapper(&self.context()));
        match adapter.map(|decided| decided.decision) {
            Ok(Some(mapper)) => Ok(Frames::mapped(body, upstream, mapper)),
            Ok(None) => Err(FaultKind::NoRoom),
            Err(error) => Err(unmapped(&self.upstream.adapter.current().plugin().manifest().id, &error)),
        }
    }

    /// A status that is not good: what it means, by the adapter, or by itself.
    async fn error(&self, head: &Parts, body: Incoming) -> Fault {
        let (until, timer) = self.deadline;
        let text = match tokio::time::timeout_at(until, Limited::new(body, ERROR_BYTES_MAX).collect()).await {
            Err(_elapsed) => return FaultKind::Timeout(timer).into(),
            Ok(Err(_broken)) => return FaultKind::Broken.into(),
            Ok(Ok(text)) => text.to_bytes(),
        };
        let status = head.status.as_u16();
        let shown = self.shown(head, &text);
        let said = Said {
            status: head.status,
            headers: self.passed_headers(&head.headers),
            body: Bytes::from(shown.body.clone()),
        };
        let context = self.context();
        let verdict = self.upstream.adapter.decide(|adapter| adapter.classify(&context, shown.clone()));
        let verdict = match verdict {
            Ok(decided) => Some(decided.decision),
            Err(error) => {
                tracing::debug!(request = self.call.request_id, %error, "the adapter did not classify");
                None
            }
        };
        let class = verdict.as_ref().map_or_else(|| FaultClass::of_status(status), |verdict| verdict.class);
        let retry_after = verdict.as_ref().and_then(|verdict| verdict.retry_after);
        let said = match self.plan.response {
            ResponsePlan::SameWire => said,
            ResponsePlan::Mapped => in_openai_words(said, verdict),
        };
        Fault {
            kind: FaultKind::Status { class, status },
            retry_after: retry_after.or_else(|| retry_after_of(&head.headers)),
            said: Some(Box::new(said)),
        }
    }

    fn inside(&self, class: FaultClass, message: &str) -> FaultKind {
        let message = signer::scrub(message.as_bytes(), &self.upstream.secrets);
        FaultKind::Inside { class, message: String::from_utf8_lossy(&message).into_owned() }
    }

    /// Which timer is next while nothing has gone to the client.
    fn next_timer(&self) -> (Instant, Timer) {
        let timers = &self.upstream.timers;
        let streaming = self.call.shape.streaming;
        let idle = (Instant::now() + timers.idle(streaming), Timer::Idle);
        let first = (self.sent + timers.first_content, Timer::FirstContent);
        let first = streaming.then_some(first);
        // In the order in which they are told apart: the first of equal times has the word.
        let timers = [Some(self.deadline), first, Some(idle)];
        timers.into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or(self.deadline)
    }

    fn context(&self) -> AnswerContext {
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
    fn shown(&self, head: &Parts, text: &Bytes) -> VendorAnswer {
        let headers = self.passed_headers(&head.headers);
        let header = |(name, value): (&http::HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        VendorAnswer {
            status: head.status.as_u16(),
            headers: headers.iter().filter_map(header).collect(),
            body: signer::scrub(text, &self.upstream.secrets),
        }
    }

    fn answer(&self, head: &Parts, body: Body) -> Response<Body> {
        let mut answer = Response::new(body);
        *answer.status_mut() = head.status;
        *answer.headers_mut() = self.passed_headers(&head.headers);
        answer
    }

    /// What a client needs of a vendor's head; the rest is between the vendor and the operator.
    fn passed_headers(&self, vendor: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
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

/// A vendor's error for a client that speaks another wire.
fn in_openai_words(said: Said, verdict: Option<Verdict>) -> Said {
    let code = match &verdict {
        Some(verdict) if verdict.context_length => "context_length_exceeded",
        Some(_) | None => "upstream_error",
    };
    let message =
        verdict.map_or_else(|| format!("the vendor answered {}", said.status), |verdict| verdict.message);
    let mut headers = said.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let kind = if said.status.is_client_error() { "invalid_request_error" } else { "server_error" };
    let body = crate::refusal::envelope(&message, kind, None, code);
    Said { status: said.status, headers, body }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Some vendors leave the type out; an answer that was asked for as a stream is taken for one.
    kind.is_empty() || kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
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

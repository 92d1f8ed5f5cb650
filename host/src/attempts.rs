//! Asks one target after the other until one answers, and the same ones again where that is safe.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use sluice_core::retry;
use sluice_core::stats::InFlight;
use sluice_runtime::{Decided, Plugin};
use tokio::time::Instant;

use crate::answer::Reading;
use crate::call::SharedCall;
use crate::fault::{Fault, FaultKind, Timer};
use crate::lane::{Lane, Pass};
use crate::planning::{self, Unplanned, Way};
use crate::prepared::Prepared;
use crate::refusal::Refusal;
use crate::routes::{Model, Target};
use crate::signer;
use crate::stream::{Body, Underway};

/// A vendor that asks for a longer pause is not waited for; its wish is passed on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// One request's attempts.
pub(crate) struct Attempts<'a> {
    pub(crate) model: &'a Model,
    pub(crate) call: &'a SharedCall,
    /// Chance, for the waits between retries.
    pub(crate) chance: &'a RandomState,
    pub(crate) deadline: Instant,
}

/// A target that may be asked, and its lane.
#[derive(Clone)]
pub(crate) struct Free {
    pub(crate) target: Arc<Target>,
    pub(crate) lane: Arc<Lane>,
}

/// An answer, and who made the plan for it.
pub(crate) struct Answered {
    pub(crate) answer: Response<Body>,
    pub(crate) target: Arc<Target>,
    pub(crate) by: Arc<Plugin>,
}

/// Why an attempt gave no answer.
enum Failed {
    /// Nobody would serve this request.
    Refused(Refusal),
    /// This adapter cannot serve it; another may.
    Unserved(String),
    Fault(Fault),
}

impl Attempts<'_> {
    /// # Errors
    ///
    /// The refusal that the last target's failure is, or the first that no other target would mend.
    pub(crate) async fn run(&self, order: &[Free]) -> Result<Answered, Refusal> {
        let mut last: Option<Refusal> = None;
        let mut again: Vec<Option<Duration>> = vec![None; order.len()];
        for round in 0..=self.model.retries {
            for (free, again) in order.iter().zip(&mut again) {
                let target = &free.target;
                match round {
                    0 => target.upstream.retries.called(),
                    _ => match again.take() {
                        Some(wait) if self.may_repeat(target, round - 1, wait).await => {}
                        Some(_) | None => continue,
                    },
                }
                // Others may have opened it since the candidates were chosen.
                let Some(pass) = free.lane.ask(std::time::Instant::now()) else { continue };
                match self.attempt(target, pass).await {
                    Ok(answered) => return Ok(answered),
                    Err(Failed::Refused(refusal)) => return Err(refusal),
                    Err(Failed::Unserved(text)) => last = Some(Refusal::Unserved { text }),
                    Err(Failed::Fault(fault)) => {
                        let class = fault.kind.class();
                        free.lane.rest(class, fault.retry_after, std::time::Instant::now());
                        let wait = fault.retry_after.unwrap_or_default();
                        *again = (fault.kind.repeats() && wait <= RETRY_AFTER_MAX).then_some(wait);
                        let over = matches!(fault.kind, FaultKind::Timeout(Timer::Deadline));
                        let refusal = Refusal::of_fault(&target.upstream.name, fault);
                        if over || !class.fails_over() {
                            return Err(refusal);
                        }
                        last = Some(refusal);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Refusal::resting(order.iter().map(|free| &free.lane))))
    }

    /// Waits before a retry, if it is within the upstream's budget and the deadline.
    async fn may_repeat(&self, target: &Target, retry: u32, at_least: Duration) -> bool {
        let wait = retry::backoff(retry, self.chance.hash_one(&self.call.request_id)).max(at_least);
        if Instant::now() + wait >= self.deadline || !target.upstream.retries.retry() {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    async fn attempt(&self, target: &Arc<Target>, pass: Pass) -> Result<Answered, Failed> {
        let upstream = &target.upstream;
        // Until the answer has ended.
        let inflight = InFlight::begin(Arc::clone(&target.stats));
        let mut underway = Underway::new(self.call.request_id.clone(), inflight, pass);
        let target_model = target.model_for(&self.model.name, &self.call.shape.model);
        let Decided { decision, by } = match planning::plan(upstream, self.call, target_model) {
            Ok(decided) => decided,
            Err(Unplanned::Refused(refusal)) => {
                underway.unasked();
                return Err(Failed::Refused(refusal));
            }
            Err(Unplanned::Unserved(text)) => {
                underway.unasked();
                return Err(Failed::Unserved(text));
            }
            Err(Unplanned::Plugin(plugin)) => {
                let kind = FaultKind::Plugin { plugin };
                underway.failed(&kind);
                return Err(Failed::Fault(kind.into()));
            }
        };
        let answered = |answer| Answered { answer, target: Arc::clone(target), by: Arc::clone(&by) };
        match decision {
            Way::Answer(pieces) => {
                upstream.adapter.turned_out(&by, true);
                underway.good();
                Ok(answered(answered_by_adapter(self.call.shape.streaming, pieces)))
            }
            Way::Send(prepared, outbound) => {
                match self.send(target, &prepared, outbound, underway, &by).await {
                    Ok(answer) => Ok(answered(answer)),
                    Err((fault, mut underway)) => {
                        underway.failed(&fault.kind);
                        Err(Failed::Fault(fault))
                    }
                }
            }
        }
    }

    async fn send(
        &self,
        target: &Arc<Target>,
        prepared: &Prepared,
        outbound: Bytes,
        underway: Underway,
        by: &Arc<Plugin>,
    ) -> Result<Response<Body>, (Fault, Underway)> {
        let upstream = &target.upstream;
        // Secrets last.
        let request = match outbound_request(prepared, target, outbound) {
            Ok(request) => request,
            Err(kind) => return Err((kind.into(), underway)),
        };
        let (sent, streaming) = (Instant::now(), self.call.shape.streaming);
        let total = (sent + upstream.timers.total, Timer::Total);
        let deadline = if self.deadline < total.0 { (self.deadline, Timer::Deadline) } else { total };
        let headers = (sent + upstream.timers.headers(streaming), Timer::Headers);
        let (until, timer) = if headers.0 < deadline.0 { headers } else { deadline };
        let response = upstream.client.send(request, until, timer).await;
        upstream.adapter.turned_out(
            by,
            response.as_ref().is_ok_and(|response| was_understood(response.status())) || response.is_err(),
        );
        let response = match response {
            Ok(response) => response,
            Err(kind) => return Err((kind.into(), underway)),
        };
        let reading = Reading { call: self.call, upstream, plan: &prepared.plan, sent, deadline };
        reading.read(response, underway).await
    }
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

fn outbound_request(
    prepared: &Prepared,
    target: &Target,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, FaultKind> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = prepared.method.clone();
    *request.uri_mut() = prepared.uri.clone();
    *request.headers_mut() = prepared.headers.clone();
    signer::sign(&mut request, &prepared.plan.auth, &target.upstream.secrets).map_err(|error| {
        tracing::error!(upstream = target.upstream.name, %error, "not signed");
        FaultKind::Credential
    })?;
    Ok(request)
}

fn answered_by_adapter(streaming: bool, pieces: Vec<Vec<u8>>) -> Response<Body> {
    let content_type = if streaming { "text/event-stream" } else { "application/json" };
    let mut answer = Response::new(Body::pieces(pieces));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

//! Asks one target after the other until one answers, and the same ones again where that is safe.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use sluice_core::fault::FaultClass;
use sluice_core::plan::ResponsePlan;
use sluice_core::retry;
use sluice_core::stats::InFlight;
use sluice_runtime::{Plugin, Versioned};
use tokio::time::Instant;

use crate::answer::Reading;
use crate::call::SharedCall;
use crate::charge::Charge;
use crate::fault::{Fault, FaultKind, Timer};
use crate::funding::{Funded, Purse};
use crate::lane::{Lane, Pass};
use crate::planning::{self, Planner, Unplanned, Version, Way};
use crate::prepared::Prepared;
use crate::refusal::Refusal;
use crate::routes::{Model, Target};
use crate::signer;
use crate::stream::{Body, Client};
use crate::underway::Underway;
use crate::upstream::Repeats;

/// A vendor that asks for a longer pause is not waited for; its wish is passed on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// One request's attempts.
pub(crate) struct Attempts<'a> {
    pub(crate) model: &'a Model,
    pub(crate) call: &'a SharedCall,
    /// Chance, for the waits between retries.
    pub(crate) chance: &'a RandomState,
    pub(crate) deadline: Instant,
    pub(crate) client: Client,
    /// Who pays, where spending is written down.
    pub(crate) purse: Option<&'a Purse>,
}

/// A planned attempt, on its own: it may outlive the client.
struct Sending {
    call: SharedCall,
    target: Arc<Target>,
    prepared: Arc<Prepared>,
    body: Bytes,
    hides_usage: bool,
    client: Client,
    deadline: Instant,
    /// The model's, for all attempts.
    span: Duration,
    underway: Box<Underway>,
    planner: Planner,
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
    /// Nobody pays for it at this target; another may be cheaper.
    Unpaid(Refusal),
    Fault(Fault),
}

/// What the client is told when nobody has answered: the failure that is worth most to it.
#[derive(Default)]
struct LastWord(Option<(Worth, Refusal)>);

/// The lesser, the better for the client to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// It would be served after this pause.
    Pause(Duration),
    /// It may be served when it asks again.
    Passing,
    /// The operator has to mend something.
    Operator,
    /// None of the targets has what it asks for.
    Nothing,
}

impl Attempts<'_> {
    /// # Errors
    ///
    /// The refusal that the last target's failure is, or the first that no other target would mend.
    pub(crate) async fn run(&self, order: &[Free]) -> Result<Answered, Refusal> {
        let mut word = LastWord::default();
        let mut again: Vec<Option<Duration>> = vec![None; order.len()];
        for round in 0..=self.model.retries {
            for (free, again) in order.iter().zip(&mut again) {
                let target = &free.target;
                match round {
                    0 => target.upstream.retries.called(),
                    _ => match again.take() {
                        Some(wait) if self.may_repeat(free, round - 1, wait).await => {}
                        Some(_) | None => continue,
                    },
                }
                let now = Instant::now();
                if now >= self.deadline {
                    let late =
                        Refusal::of_fault(&target.upstream.name, FaultKind::Timeout(Timer::Remainder).into());
                    word.add(Worth::Passing, late);
                    return Err(word.or_resting(order));
                }
                // Others may have opened it since the candidates were chosen.
                let Some(pass) = free.lane.ask(now.into_std()) else { continue };
                match self.attempt(free, pass).await {
                    Ok(answered) => return Ok(answered),
                    Err(Failed::Refused(refusal)) => return Err(refusal),
                    Err(Failed::Unserved(text)) => word.add(Worth::Nothing, Refusal::Unserved { text }),
                    Err(Failed::Unpaid(refusal)) => {
                        let worth = Worth::unpaid(&refusal);
                        word.add(worth, refusal);
                    }
                    Err(Failed::Fault(fault)) => {
                        // What is in one request may be forbidden; what is in all of them is not.
                        if fault.kind != FaultKind::Forbidden || free.lane.is_shut() {
                            free.lane.rest(fault.kind.class(), fault.retry_after, std::time::Instant::now());
                        }
                        let wait = fault.retry_after.unwrap_or_default();
                        *again = (fault.kind.repeats() && wait <= RETRY_AFTER_MAX).then_some(wait);
                        let timer = FaultKind::Timeout;
                        let over = [timer(Timer::Deadline), timer(Timer::Remainder)].contains(&fault.kind);
                        let (worth, fails_over) = (Worth::of(&fault), fault.kind.fails_over());
                        let refusal = Refusal::of_fault(&target.upstream.name, fault);
                        if !fails_over {
                            return Err(refusal);
                        }
                        word.add(worth, refusal);
                        if over {
                            return Err(word.or_resting(order));
                        }
                    }
                }
            }
        }
        Err(word.or_resting(order))
    }

    /// Waits before a retry, if it is within the upstream's budget and the deadline.
    async fn may_repeat(&self, free: &Free, retry: u32, at_least: Duration) -> bool {
        let wait = retry::backoff(retry, self.chance.hash_one(&self.call.request_id)).max(at_least);
        let open = free.lane.standing(std::time::Instant::now()).is_none();
        if open || Instant::now() + wait >= self.deadline || !free.target.upstream.retries.retry() {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    /// One attempt; where a version on probation breaks down over the answer, another one by the
    /// version before.
    async fn attempt(&self, free: &Free, pass: Pass) -> Result<Answered, Failed> {
        let first = self.attempt_by(&free.target, pass, Version::Current).await;
        let Err(Failed::Fault(Fault { kind: FaultKind::Plugin { replaceable: true, .. }, .. })) = &first
        else {
            return first;
        };
        let Some(pass) = free.lane.ask(std::time::Instant::now()) else { return first };
        self.attempt_by(&free.target, pass, Version::Before).await
    }

    async fn attempt_by(
        &self,
        target: &Arc<Target>,
        pass: Pass,
        version: Version,
    ) -> Result<Answered, Failed> {
        // Until the answer has ended.
        let inflight = InFlight::begin(Arc::clone(&target.stats));
        let mut underway = Underway::new(self.call.request_id.clone(), inflight, pass);
        let target_model = target.model_for(&self.model.name, &self.call.shape.model);
        let (way, planner) = match planning::plan(&target.upstream, self.call, target_model, version) {
            Ok(planned) => planned,
            Err(Unplanned::Refused(refusal)) => {
                underway.unasked();
                return Err(Failed::Refused(refusal));
            }
            Err(Unplanned::Unserved(text)) => {
                underway.unasked();
                return Err(Failed::Unserved(text));
            }
            Err(Unplanned::Plugin(plugin)) => {
                let kind = FaultKind::Plugin { plugin, replaceable: false };
                underway.failed(&kind);
                return Err(Failed::Fault(kind.into()));
            }
        };
        let by = Arc::clone(planner.adapter().plugin());
        let answered = |answer| Answered { answer, target: Arc::clone(target), by };
        match way {
            Way::Answer(pieces) => {
                underway.unasked();
                if let Some(purse) = self.purse {
                    Charge::new(&purse.tally, target, target_model, None, None).answered();
                }
                Ok(answered(answered_by_adapter(self.call.shape.streaming, pieces)))
            }
            Way::Send(prepared, outbound) => {
                let funded = match self.fund(target, target_model, &prepared, outbound).await {
                    Ok(funded) => funded,
                    Err(refusal) => {
                        underway.unasked();
                        return Err(Failed::Unpaid(refusal));
                    }
                };
                underway.is_paid_by(funded.charge);
                let holds = underway.holds_money();
                let sending = Sending {
                    call: Arc::clone(self.call),
                    target: Arc::clone(target),
                    prepared,
                    body: funded.body,
                    hides_usage: funded.hides_usage,
                    client: self.client.clone(),
                    deadline: self.deadline,
                    span: self.model.deadline,
                    underway,
                    planner,
                };
                let answer = match self.purse.and_then(|purse| purse.money.as_ref()) {
                    Some(money) if holds => money.drains.drained(sending.send()).await,
                    Some(_) | None => sending.send().await,
                };
                answer.map(answered).map_err(Failed::Fault)
            }
        }
    }

    async fn fund(
        &self,
        target: &Target,
        target_model: &str,
        prepared: &Prepared,
        body: Bytes,
    ) -> Result<Funded, Refusal> {
        match self.purse {
            Some(purse) => {
                purse.fund(self.model, target, target_model, self.call, &prepared.plan, body).await
            }
            None => Ok(Funded { body, charge: None, hides_usage: false }),
        }
    }
}

impl Sending {
    async fn send(self) -> Result<Response<Body>, Fault> {
        match self.attempt().await {
            Ok(answer) => Ok(answer),
            Err((fault, mut underway)) => {
                underway.failed(&fault.kind);
                Err(fault)
            }
        }
    }

    async fn attempt(self) -> Result<Response<Body>, (Fault, Box<Underway>)> {
        let Sending { call, target, prepared, body, client, mut underway, planner, .. } = self;
        let upstream = &target.upstream;
        let streaming = call.shape.streaming;
        let place = match prepared.plan.response {
            ResponsePlan::Mapped if streaming => match planner.adapter().place() {
                None => return Err((FaultKind::NoRoom.into(), underway)),
                place => place,
            },
            ResponsePlan::Mapped | ResponsePlan::SameWire => None,
        };
        // Secrets last.
        let request = || outbound_request(&prepared, &target, &body);
        underway.sent();
        let sent = Instant::now();
        let total = (sent + upstream.timers.total, Timer::Total);
        let left = self.deadline.saturating_duration_since(sent);
        let timer = if left * 2 < self.span { Timer::Remainder } else { Timer::Deadline };
        let deadline = if self.deadline < total.0 { (self.deadline, timer) } else { total };
        let headers = (sent + upstream.timers.headers(streaming), Timer::Headers);
        let (until, timer) = if headers.0 < deadline.0 { headers } else { deadline };
        // What is paid for goes out once: who hung up may have worked on it.
        let repeats = if underway.is_capped() { Repeats::Never } else { Repeats::Stale };
        let response = match upstream.client.send(request, until, timer, repeats).await {
            Ok(response) => response,
            Err(kind) => return Err((kind.into(), underway)),
        };
        let (plan, hides_usage) = (&prepared.plan, self.hides_usage);
        let reading = Reading { call: &call, upstream, plan, sent, deadline, client: &client, hides_usage };
        reading.read(response, underway, planner, place).await
    }
}

impl LastWord {
    /// Of two that are worth the same, the later one counts.
    fn add(&mut self, worth: Worth, refusal: Refusal) {
        if self.0.as_ref().is_none_or(|(known, _)| worth <= *known) {
            self.0 = Some((worth, refusal));
        }
    }

    /// Where nobody was asked, all of them rest.
    fn or_resting(self, order: &[Free]) -> Refusal {
        let said = self.0.map(|(_, refusal)| refusal);
        said.unwrap_or_else(|| Refusal::resting(order.iter().map(|free| &free.lane)))
    }
}

impl Worth {
    /// Money that is gone until a window ends is no pause that anybody waits for.
    fn unpaid(refusal: &Refusal) -> Worth {
        let is_gone = matches!(refusal, Refusal::Budget(budget) if budget.exhausted);
        refusal.pause().filter(|_| !is_gone).map_or(Worth::Operator, Worth::Pause)
    }

    fn of(fault: &Fault) -> Worth {
        match (fault.kind.class(), fault.retry_after) {
            (FaultClass::Throttled, Some(pause)) => Worth::Pause(pause),
            (FaultClass::Throttled | FaultClass::Provider | FaultClass::Plugin | FaultClass::Policy, _) => {
                Worth::Passing
            }
            (FaultClass::Credential, _) => Worth::Operator,
            (FaultClass::Caller, _) => Worth::Nothing,
        }
    }
}

fn outbound_request(
    prepared: &Prepared,
    target: &Target,
    body: &Bytes,
) -> Result<Request<Full<Bytes>>, FaultKind> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = prepared.method.clone();
    *request.uri_mut() = prepared.uri.clone();
    *request.headers_mut() = prepared.headers.clone();
    signer::sign(&mut request, &prepared.plan.auth, &target.upstream.secrets).map_err(|error| {
        tracing::error!(upstream = target.upstream.name, %error, "not signed");
        FaultKind::Credential { status: None }
    })?;
    Ok(request)
}

fn answered_by_adapter(streaming: bool, pieces: Vec<Vec<u8>>) -> Response<Body> {
    let content_type = if streaming { "text/event-stream" } else { "application/json" };
    let mut answer = Response::new(Body::pieces(pieces));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

//! The path of a request: one list, whose order is the design.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use sluice_core::plan::BodyPlan;
use sluice_core::ranking::{self, Candidate, NO_CAP, NO_PRICE, View};
use sluice_core::stats::InFlight;
use sluice_runtime::{Adapter, CallError, Decided, Decision, Fault, Plugin, Versioned};

use crate::call::{Call, SharedCall};
use crate::config::Secret;
use crate::prepared::Prepared;
use crate::refusal::{Refusal, UpstreamFault};
use crate::routes::{Model, Target, Upstream};
use crate::signer;
use crate::snapshot::Current;
use crate::stream::{Body, Report};
use crate::upstream::{self, Client, TOTAL_MAX};

/// Bytes of a request body at most: 20 MiB, room for a few images in base64.
pub(crate) const BODY_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Bytes of a vendor's error that reach the client.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Output of a request without a limit: what is expected, and the most that is reckoned with.
const OUTPUT_TOKENS_EXPECTED: u64 = 512;
const OUTPUT_TOKENS_WORST: u64 = 4096;

/// Serves completions by the snapshot of the moment.
pub(crate) struct Gateway {
    current: Current,
    client: Client,
    /// Chance, for policies; not for secrets.
    chance: RandomState,
}

/// Who serves a request: all from one snapshot, kept to the end.
struct Service {
    generation: u64,
    model: Arc<Model>,
    target: Arc<Target>,
    /// Who ranked; none where there was nothing to rank, or where the host's own order served.
    ranked_by: Option<Arc<Plugin>>,
}

/// A request's way out.
enum Way {
    /// Ready but for the secret, with the bytes that will really be sent.
    Send(Arc<Prepared>, Bytes),
    Answer(Vec<Vec<u8>>),
}

impl Gateway {
    pub(crate) fn new(current: Current, client: Client) -> Gateway {
        Gateway { current, client, chance: RandomState::new() }
    }

    /// One chat completion. The order of these lines is the design.
    pub(crate) async fn chat(
        &self,
        request_id: String,
        received: Instant,
        head: Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let text = read_body(&head.headers, body).await?; // bounded, before anything is made of it
        let call = Arc::new(Call::chat(request_id, received, head.headers, text)?); // one scan
        let (generation, model) = self.model(&call)?; // from one snapshot, kept to the end
        let candidates = candidates(&model, &call); // all that the host allows
        let (target, ranked_by) = self.choose(&model, &call, &candidates); // a policy orders, and cannot widen
        let service = Service { generation, model, target, ranked_by };
        let target = &service.target;
        let inflight = InFlight::begin(Arc::clone(&target.stats)); // until the answer has ended
        let Decided { decision, by } = plan(&service, &call)?; // an adapter says what to send
        let answer = match decision {
            Way::Answer(pieces) => {
                target.upstream.adapter.turned_out(&by, true);
                let report = Report::new(call.request_id.clone(), received, inflight);
                answered_by_adapter(&call, pieces, report)
            }
            Way::Send(prepared, outbound) => {
                let request = outbound_request(&prepared, target, outbound)?; // secrets last
                let response = self.client.send(request).await; // one attempt
                target.upstream.adapter.turned_out(&by, was_understood(&response));
                relay(response, target, &call, inflight).await?
            }
        };
        log_answer(&call, &service, &by, answer.status());
        Ok(answer)
    }

    fn model(&self, call: &Call) -> Result<(u64, Arc<Model>), Refusal> {
        let snapshot = self.current.load();
        let found = snapshot.routes.model(&call.shape.model).map(Arc::clone);
        let found = found.map(|model| (snapshot.generation, model));
        found.ok_or_else(|| Refusal::NoSuchModel { model: call.shape.model.chars().take(128).collect() })
    }

    /// The policy's first choice; the native order's where it has none. One candidate needs no policy.
    fn choose(
        &self,
        model: &Model,
        call: &Call,
        candidates: &[Candidate],
    ) -> (Arc<Target>, Option<Arc<Plugin>>) {
        let seq = model.next_seq();
        let (first, by) = match candidates {
            [_only] => (0, None),
            candidates => {
                let view = self.view(model, call, seq);
                match model.policy.decide(|policy| policy.rank(&view, candidates)) {
                    Ok(Decided { decision, by }) => {
                        model.policy.turned_out(&by, true);
                        (decision.order[0], Some(by))
                    }
                    Err(error) => {
                        tracing::debug!(request = call.request_id, %error, "the policy did not rank; native order");
                        (ranking::native_order(candidates)[0], None)
                    }
                }
            }
        };
        (Arc::clone(&model.targets[first]), by)
    }

    fn view(&self, model: &Model, call: &Call, seq: u64) -> View {
        View {
            tenant: 0,
            model: model.id,
            endpoint: call.shape.endpoint,
            streaming: call.shape.streaming,
            seq,
            // Guests may see no more than 53 bits exactly.
            seed: self.chance.hash_one((model.id, seq)) >> 11,
            now_ms: call.received_ms,
            session: 0,
            prefix: 0,
            budget_left: NO_CAP,
            deadline_ms: u32::try_from(TOTAL_MAX.as_millis()).unwrap_or(u32::MAX),
            needs: call.shape.features,
        }
    }
}

async fn read_body(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Refusal> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Refusal::BodyEncoded);
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::BodyTooLarge { bytes_max: BODY_BYTES_MAX })
        }
        Err(_broken) => Err(Refusal::BodyBroken),
    }
}

/// The model's targets as a policy sees them; a candidate's id is its place.
fn candidates(model: &Model, call: &Call) -> Vec<Candidate> {
    let (input_expected, input_worst) = call.input_tokens();
    let output_expected = call.output_limit.unwrap_or(u64::MAX).min(OUTPUT_TOKENS_EXPECTED);
    let output_worst = call.output_limit.unwrap_or(OUTPUT_TOKENS_WORST);
    let choices = u64::from(call.choices);
    let candidate = |(id, target): (u32, &Arc<Target>)| {
        // A cost too large for a guest to see exactly is none: the target is shown as unpriced.
        let cost = |input, output: u64| {
            let cost = target.price?.cost(input, output.saturating_mul(choices)).ok()?;
            (cost.nanos() < NO_PRICE).then_some(cost)
        };
        let expected = cost(input_expected, output_expected).zip(cost(input_worst, output_worst));
        let stats = target.stats.snapshot();
        Candidate {
            id,
            priority: target.priority,
            weight: target.weight,
            expected: expected.map_or(NO_PRICE, |(expected, _)| expected.nanos()),
            worst: expected.map_or(NO_PRICE, |(_, worst)| worst.nanos()),
            ewma_ttft_us: stats.ttft_us,
            ewma_total_us: stats.total_us,
            samples: stats.samples,
            success_permille: stats.success_permille,
            inflight: stats.inflight,
            ..Candidate::default()
        }
    };
    (0..).zip(&model.targets).map(candidate).collect()
}

/// The adapter's plan, ready to be sent.
fn plan(service: &Service, call: &SharedCall) -> Result<Decided<Way>, Refusal> {
    let (target, upstream) = (&service.target, &service.target.upstream);
    let target_model = target.model_for(&service.model.name, &call.shape.model);
    let decided = upstream.adapter.decide(|adapter| plan_by(adapter, upstream, call, target_model));
    call.check_duplicate()?;
    let Decided { decision, by } = decided.map_err(|error| {
        let plugin = &upstream.adapter.current().plugin().manifest().id;
        tracing::debug!(request = call.request_id, plugin, %error, "the adapter did not plan");
        target.stats.failed();
        Refusal::from_adapter(plugin, error)
    })?;
    Ok(Decided { decision: decision?, by })
}

/// One version's plan: a kept one where it depends on the shape alone, else from a fresh instance.
/// Its faults are errors; what is wrong with the client's request is a refusal.
fn plan_by(
    adapter: &Adapter,
    upstream: &Upstream,
    call: &SharedCall,
    target_model: &str,
) -> Result<Result<Way, Refusal>, CallError> {
    let current = Arc::ptr_eq(adapter.plugin(), upstream.adapter.current().plugin());
    if current && let Some(prepared) = upstream.plans.get(&call.shape, target_model) {
        return splice(adapter, prepared, call);
    }
    let inbound: SharedCall = Arc::clone(call);
    let planned = adapter.plan(inbound, target_model)?;
    let plan = match planned.decision {
        Decision::Answer(pieces) => return Ok(Ok(Way::Answer(pieces))),
        Decision::Send(plan) => plan,
    };
    let prepared = Prepared::new(plan, upstream.base_url.as_ref());
    let prepared = Arc::new(prepared.map_err(|error| adapter.breach(Fault::Route, error.to_string()))?);
    if current && planned.reusable {
        upstream.plans.insert(&call.shape, target_model, Arc::clone(&prepared));
    }
    splice(adapter, prepared, call)
}

fn splice(
    adapter: &Adapter,
    prepared: Arc<Prepared>,
    call: &Call,
) -> Result<Result<Way, Refusal>, CallError> {
    use sluice_core::json::SpliceError;
    let spliced = match &prepared.plan.body {
        BodyPlan::None => Ok(Bytes::new()),
        BodyPlan::Passthrough => Ok(call.text().clone()),
        BodyPlan::Replace(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        BodyPlan::Edits(edits) => call.splice(edits).map(Bytes::from),
    };
    match spliced {
        Ok(body) => Ok(Ok(Way::Send(prepared, body))),
        Err(SpliceError::Duplicate(duplicate)) => Ok(Err(Refusal::Duplicate(duplicate))),
        Err(error @ (SpliceError::NotAnObject { .. } | SpliceError::TooManyMembers { .. })) => {
            Ok(Err(Refusal::Unfit(error)))
        }
        Err(
            error @ (SpliceError::MissingParent { .. } | SpliceError::WholeText | SpliceError::TooManyEdits),
        ) => Err(adapter.breach(Fault::Edit, error.to_string())),
    }
}

/// Whether the vendor took the request for one: if not, the adapter may have made it wrong.
fn was_understood(answer: &Result<upstream::Answer, UpstreamFault>) -> bool {
    !answer.as_ref().is_ok_and(|answer| {
        matches!(
            answer.response.status(),
            StatusCode::BAD_REQUEST
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY
        )
    })
}

fn outbound_request(
    prepared: &Prepared,
    target: &Target,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = prepared.method.clone();
    *request.uri_mut() = prepared.uri.clone();
    *request.headers_mut() = prepared.headers.clone();
    signer::sign(&mut request, &prepared.plan.auth, &target.upstream.secrets).map_err(|error| {
        tracing::error!(upstream = target.upstream.name, %error, "not signed");
        Refusal::Upstream { upstream: target.upstream.name.clone(), fault: UpstreamFault::Credential }
    })?;
    Ok(request)
}

/// The vendor's answer as it comes; an error is read first, since it may repeat the secret.
async fn relay(
    answer: Result<upstream::Answer, UpstreamFault>,
    target: &Target,
    call: &Call,
    inflight: InFlight<Arc<sluice_core::stats::TargetStats>>,
) -> Result<Response<Body>, Refusal> {
    let upstream = &target.upstream;
    let failed = |fault| {
        target.stats.failed();
        Refusal::Upstream { upstream: upstream.name.clone(), fault }
    };
    let upstream::Answer { response, deadline } = answer.map_err(failed)?;
    let (status, headers) = (response.status(), passed_headers(response.headers(), &upstream.secrets));
    let body = response.into_body();
    let body = if status.is_success() {
        Body::relay(body, deadline, Report::new(call.request_id.clone(), call.received, inflight))
    } else {
        let error = tokio::time::timeout_at(deadline, Limited::new(body, ERROR_BYTES_MAX).collect()).await;
        let error = error.map_err(|_elapsed| failed(UpstreamFault::Silent))?;
        let error = error.map_err(|_broken| failed(UpstreamFault::Broken))?;
        target.stats.failed();
        tracing::info!(
            request = call.request_id,
            upstream = upstream.name,
            status = status.as_u16(),
            "the upstream refused"
        );
        Body::full(signer::scrub(&error.to_bytes(), &upstream.secrets).into())
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// What a client needs of a vendor's head; the rest is between the vendor and the operator.
fn passed_headers(vendor: &HeaderMap, secrets: &BTreeMap<String, Secret>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    for name in [CONTENT_TYPE, RETRY_AFTER] {
        if let Some(value) = vendor.get(&name).filter(|value| !signer::repeats(value.as_bytes(), secrets)) {
            headers.insert(name, value.clone());
        }
    }
    headers
}

fn answered_by_adapter(call: &Call, pieces: Vec<Vec<u8>>, report: Report) -> Response<Body> {
    let content_type = if call.shape.streaming { "text/event-stream" } else { "application/json" };
    let mut answer = Response::new(Body::pieces(pieces));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    report.complete();
    answer
}

fn log_answer(call: &Call, service: &Service, adapter: &Plugin, status: StatusCode) {
    let policy = service.ranked_by.as_deref();
    tracing::debug!(
        request = call.request_id,
        generation = service.generation,
        model = call.shape.model,
        upstream = service.target.upstream.name,
        policy = policy.map(|policy| policy.manifest().id.as_str()),
        policy_version = policy.map(|policy| policy.manifest().version.as_str()),
        policy_digest = policy.map(Plugin::digest),
        adapter = adapter.manifest().id,
        adapter_version = adapter.manifest().version,
        adapter_digest = adapter.digest(),
        status = status.as_u16(),
        "answering"
    );
}

//! The path of a request: one list, whose order is the design.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use sluice_core::plan::BodyPlan;
use sluice_core::ranking::{self, Candidate, NO_CAP, NO_PRICE, View};
use sluice_core::stats::InFlight;
use sluice_runtime::{CallError, Decision, Fault};

use crate::call::{Call, SharedCall};
use crate::config::Secret;
use crate::prepared::Prepared;
use crate::refusal::{Refusal, UpstreamFault};
use crate::routes::{Model, Routes, Target};
use crate::signer;
use crate::stream::{Body, Report};
use crate::upstream::{self, Client, TOTAL_MAX};

/// Bytes of a request body at most: 20 MiB, room for a few images in base64.
pub(crate) const BODY_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Bytes of a vendor's error that reach the client.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Output of a request without a limit: what is expected, and the most that is reckoned with.
const OUTPUT_TOKENS_EXPECTED: u64 = 512;
const OUTPUT_TOKENS_WORST: u64 = 4096;

/// Serves completions by the routes of the moment.
pub(crate) struct Gateway {
    routes: ArcSwap<Routes>,
    client: Client,
    /// Chance, for policies; not for secrets.
    chance: RandomState,
}

/// Who serves, and what to send: a request's way out.
enum Way {
    Send(Arc<Prepared>),
    Answer(Vec<Vec<u8>>),
}

impl Gateway {
    pub(crate) fn new(routes: Routes, client: Client) -> Gateway {
        Gateway { routes: ArcSwap::from_pointee(routes), client, chance: RandomState::new() }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
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
        let model = self.model(&call)?; // from one snapshot, kept to the end
        let candidates = candidates(&model, &call); // all that the host allows
        let target = self.choose(&model, &call, &candidates); // a policy orders, and cannot widen
        let inflight = InFlight::begin(Arc::clone(&target.stats)); // until the answer has ended
        let answer = match plan(&model, &target, &call)? {
            Way::Answer(pieces) => {
                let report = Report::new(call.request_id.clone(), received, inflight);
                answered_by_adapter(&call, pieces, report)
            }
            Way::Send(prepared) => {
                let outbound = splice(&prepared, &target, &call)?; // the bytes that will really be sent
                let request = outbound_request(&prepared, &target, outbound)?; // secrets last
                let response = self.client.send(request).await; // one attempt
                relay(response, &target, &call, inflight).await?
            }
        };
        log_answer(&call, &model, &target, answer.status());
        Ok(answer)
    }

    fn model(&self, call: &Call) -> Result<Arc<Model>, Refusal> {
        let routes = self.routes.load();
        let found = routes.model(&call.shape.model).map(Arc::clone);
        found.ok_or_else(|| Refusal::NoSuchModel { model: call.shape.model.chars().take(128).collect() })
    }

    /// The policy's first choice; the native order's where it has none. One candidate needs no policy.
    fn choose(&self, model: &Model, call: &Call, candidates: &[Candidate]) -> Arc<Target> {
        let seq = model.next_seq();
        let first = match candidates {
            [_only] => 0,
            candidates => match model.policy.rank(&self.view(model, call, seq), candidates) {
                Ok(ranking) => ranking.order[0],
                Err(error) => {
                    tracing::debug!(request = call.request_id, %error, "the policy did not rank; native order");
                    ranking::native_order(candidates)[0]
                }
            },
        };
        Arc::clone(&model.targets[first])
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

/// The adapter's plan: a kept one where it depends on the shape alone, else from a fresh instance.
fn plan(model: &Model, target: &Target, call: &SharedCall) -> Result<Way, Refusal> {
    let upstream = &target.upstream;
    let target_model = target.model_for(&model.name, &call.shape.model);
    if let Some(prepared) = upstream.plans.get(&call.shape, target_model) {
        return Ok(Way::Send(prepared));
    }
    let inbound: SharedCall = Arc::clone(call);
    let planned = upstream.adapter.plan(inbound, target_model);
    call.check_duplicate()?;
    let planned = planned.map_err(|error| adapter_failed(target, call, error))?;
    let plan = match planned.decision {
        Decision::Answer(pieces) => return Ok(Way::Answer(pieces)),
        Decision::Send(plan) => plan,
    };
    let prepared = Prepared::new(plan, upstream.base_url.as_ref()).map_err(|error| {
        let error = upstream.adapter.breach(Fault::Route, error.to_string());
        adapter_failed(target, call, error)
    })?;
    let prepared = Arc::new(prepared);
    if planned.reusable {
        upstream.plans.insert(&call.shape, target_model, Arc::clone(&prepared));
    }
    Ok(Way::Send(prepared))
}

fn splice(prepared: &Prepared, target: &Target, call: &Call) -> Result<Bytes, Refusal> {
    use sluice_core::json::SpliceError;
    let edits = match &prepared.plan.body {
        BodyPlan::None => return Ok(Bytes::new()),
        BodyPlan::Passthrough => return Ok(call.text().clone()),
        BodyPlan::Replace(bytes) => return Ok(Bytes::copy_from_slice(bytes)),
        BodyPlan::Edits(edits) => edits,
    };
    call.splice(edits).map(Bytes::from).map_err(|error| match error {
        SpliceError::Duplicate(duplicate) => Refusal::Duplicate(duplicate),
        error @ (SpliceError::NotAnObject { .. } | SpliceError::TooManyMembers { .. }) => {
            Refusal::Unfit(error)
        }
        error @ (SpliceError::MissingParent { .. } | SpliceError::WholeText | SpliceError::TooManyEdits) => {
            adapter_failed(target, call, target.upstream.adapter.breach(Fault::Edit, error.to_string()))
        }
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

fn adapter_failed(target: &Target, call: &Call, error: CallError) -> Refusal {
    let plugin = &target.upstream.adapter.plugin().manifest().id;
    tracing::debug!(request = call.request_id, plugin, %error, "the adapter did not plan");
    target.stats.failed();
    Refusal::from_adapter(plugin, error)
}

fn log_answer(call: &Call, model: &Model, target: &Target, status: StatusCode) {
    tracing::debug!(
        request = call.request_id,
        model = call.shape.model,
        policy = model.policy.plugin().manifest().id,
        adapter = target.upstream.adapter.plugin().manifest().id,
        upstream = target.upstream.name,
        status = status.as_u16(),
        "answering"
    );
}

//! The path of a request: one list, whose order is the design.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sluice_core::breaker::Standing;
use sluice_core::ranking::{self, Candidate, NO_CAP, NO_PRICE, View};
use sluice_runtime::{Decided, Outcome, Plugin, Versioned};

use crate::attempts::{Answered, Attempts, Free};
use crate::auth;
use crate::call::{Call, OUTPUT_TOKENS_EXPECTED};
use crate::caller::Caller;
use crate::charge::Tally;
use crate::config::{Budget, ClientTimers};
use crate::funding::Purse;
use crate::key_book::KeyBook;
use crate::measures::{Measures, ModelMeasures, RequestEnd, RequestMeasure};
use crate::money::Money;
use crate::rate_headers::Refused;
use crate::rates::{Permit, Rates, Told, Who};
use crate::refusal::Refusal;
use crate::routes::Model;
use crate::snapshot::Current;
use crate::stream::{Body, Client, Connection};

/// Bytes of a request body at most: 20 MiB, room for a few images in base64.
pub(crate) const BODY_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Output of a request without a limit: the most that is reckoned with.
const OUTPUT_TOKENS_WORST: u64 = 4096;

/// A candidate's breaker, as policies see it.
const BREAKER_CLOSED: u8 = 0;
const BREAKER_HALF_OPEN: u8 = 1;

/// Serves completions by the snapshot of the moment.
pub(crate) struct Gateway {
    current: Current,
    /// The ledger, where it could be opened.
    money: Option<Arc<Money>>,
    rates: Arc<Rates>,
    keys: Option<Arc<KeyBook>>,
    /// Counts requests until their model is known.
    nameless: ModelMeasures,
    /// Chance, for policies and waits; not for secrets.
    chance: RandomState,
}

/// What of the snapshot serves a request.
struct Chosen {
    generation: u64,
    model: Arc<Model>,
    stalled: Duration,
    budgets: Arc<[Budget]>,
}

/// The targets that may be asked, each with its place.
struct Candidates {
    /// Those that a policy orders.
    free: Vec<(u32, Free)>,
    /// Those that asked for a pause: the last resort.
    resting: Vec<(u32, Free)>,
}

impl Gateway {
    pub(crate) fn new(
        current: Current,
        money: Option<Arc<Money>>,
        keys: Option<Arc<KeyBook>>,
        measures: &Measures,
    ) -> Gateway {
        Gateway {
            current,
            money,
            keys,
            rates: Arc::default(),
            nameless: measures.of_no_model(),
            chance: RandomState::new(),
        }
    }

    /// One chat completion. The order of these lines is the design.
    pub(crate) async fn chat(
        &self,
        request_id: String,
        head: Parts,
        body: Incoming,
        connection: Connection,
    ) -> Result<Response<Body>, Refused> {
        let mut counted = RequestMeasure::new(&self.nameless); // told how it ended, whatever that is
        let answer = self.answer(&mut counted, request_id, head, body, connection).await;
        counted.ended(match &answer {
            Ok(_) | Err(Refused { refusal: Refusal::Said(_), .. }) => RequestEnd::Answered,
            Err(_) => RequestEnd::Refused,
        });
        answer
    }

    async fn answer(
        &self,
        counted: &mut RequestMeasure,
        request_id: String,
        head: Parts,
        body: Incoming,
        connection: Connection,
    ) -> Result<Response<Body>, Refused> {
        let caller = self.caller(&head, &connection)?; // a stranger costs nothing
        let text = self.read_body(&head.headers, body).await?; // bounded and timed, before anything is made of it
        let call = Arc::new(Call::chat(request_id, head.headers, text)?); // one scan
        let Chosen { generation, model, stalled, budgets } = self.model(&call, &caller)?; // from one snapshot, kept to the end
        counted.is_for(&model.measures);
        let deadline = tokio::time::Instant::now() + model.deadline;
        let free = free(&model, &call)?; // all that the host allows now
        let (order, ranked_by) = self.order(&model, &call, free); // a policy orders, and cannot widen
        let client = Client { stalled, connection };
        let purse = self.purse(&call, caller, &model, budgets)?; // who pays: each attempt holds its worst case
        let told = purse.as_ref().map_or_else(Told::default, |purse| purse.tally.told());
        let purse = purse.as_ref();
        let attempts = Attempts { model: &model, call: &call, chance: &self.chance, deadline, client, purse };
        let answered = attempts.run(&order).await; // an adapter says what to send; until one answers
        let answered = answered.map_err(|refusal| Refused { refusal, told: Box::new(told) })?;
        log_answer(&call, generation, ranked_by.as_deref(), &answered);
        let mut answer = answered.answer;
        told.write(answer.headers_mut());
        Ok(answer)
    }

    fn caller(&self, head: &Parts, connection: &Connection) -> Result<Caller, Refusal> {
        let access = &self.current.load().config.access;
        auth::caller(access, self.keys.as_ref(), &head.headers, connection.peer())
    }

    fn model(&self, call: &Call, caller: &Caller) -> Result<Chosen, Refusal> {
        let snapshot = self.current.load();
        let (generation, timers) = (snapshot.generation, &snapshot.config.server.timers);
        let found = snapshot.routes.model(&call.shape.model).map(Arc::clone);
        let budgets = Arc::clone(&snapshot.config.budgets);
        let found = found.map(|model| Chosen { generation, model, stalled: timers.stalled_reader, budgets });
        if !caller.allows_model(&call.shape.model) {
            return Err(Refusal::ModelNotAllowed { model: call.shape.model.chars().take(128).collect() });
        }
        found.ok_or_else(|| Refusal::NoSuchModel { model: call.shape.model.chars().take(128).collect() })
    }

    /// None where nothing is capped, limited or written down. Without a ledger no budget can be kept.
    fn purse(
        &self,
        call: &Call,
        caller: Caller,
        model: &Model,
        budgets: Arc<[Budget]>,
    ) -> Result<Option<Purse>, Refusal> {
        if self.money.is_none() && budgets.iter().any(Budget::enforces) {
            return Err(Refusal::Ledger { reason: "closed" });
        }
        let permit = self.permit(call, &caller, model)?;
        // A stranger's calls are counted, not written down: nobody is charged for them.
        let is_booked = caller.is_known() || !budgets.is_empty();
        let is_limited = model.targets.iter().any(|target| !target.upstream.limits.is_none());
        if !is_booked && permit.is_none() && !is_limited {
            return Ok(None);
        }
        let (money, rates) = (self.money.clone().filter(|_| is_booked), Arc::clone(&self.rates));
        let tally = Tally::new(money.as_ref(), &call.request_id, &caller, model.name.as_str(), permit);
        Ok(Some(Purse { money, rates, budgets, caller, tally: Arc::new(tally) }))
    }

    /// What the limits of the caller and of the model let pass.
    fn permit(&self, call: &Call, caller: &Caller, model: &Model) -> Result<Option<Permit>, Refusal> {
        let mut limited = caller.limited();
        if !model.limits.is_none() {
            limited.push((Who::Model(model.name.as_str().into()), model.limits));
        }
        if limited.is_empty() {
            return Ok(None);
        }
        let permit = self.rates.take(limited, call.tokens_expected(), Instant::now());
        permit.map(Some).map_err(Refusal::OverRate)
    }

    /// Nobody gets a completion without a key. (Until then only this machine's own pages may ask.)
    pub(crate) fn requires_keys(&self) -> bool {
        self.current.load().config.access.keys_required
    }

    /// How long clients may take now.
    pub(crate) fn client_timers(&self) -> ClientTimers {
        self.current.load().config.server.timers
    }

    /// The policy's order, and then those that rest; the host's own where the policy has none. One
    /// candidate needs no policy.
    fn order(&self, model: &Model, call: &Call, targets: Candidates) -> (Vec<Free>, Option<Arc<Plugin>>) {
        let Candidates { free, resting } = targets;
        let (mut order, by) = self.ranked(model, call, &free);
        order.extend(resting.into_iter().map(|(_, resting)| resting));
        (order, by)
    }

    fn ranked(&self, model: &Model, call: &Call, free: &[(u32, Free)]) -> (Vec<Free>, Option<Arc<Plugin>>) {
        let seq = model.next_seq();
        if let [(_, only)] = free {
            return (vec![only.clone()], None);
        }
        let candidates = candidates(free, call);
        let view = self.view(model, call, seq);
        let (order, by) = match model.policy.decide(|policy| policy.rank(&view, &candidates)) {
            Ok(Decided { decision, by }) => {
                model.policy.turned_out(&by, Outcome::Good);
                (decision.order, Some(Arc::clone(by.plugin())))
            }
            Err(error) => {
                tracing::debug!(request = call.request_id, %error, "the policy did not rank; native order");
                (ranking::native_order(&candidates), None)
            }
        };
        (order.into_iter().map(|place| free[place].1.clone()).collect(), by)
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
            deadline_ms: u32::try_from(model.deadline.as_millis()).unwrap_or(u32::MAX),
            needs: call.shape.features,
        }
    }

    async fn read_body(&self, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Refusal> {
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Refusal::BodyEncoded);
        }
        // Who asks first need not send it all. Who does not, reads the refusal only after sending.
        let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if headers.contains_key(EXPECT) && declared.is_some_and(|bytes: u64| bytes > BODY_BYTES_MAX as u64) {
            return Err(Refusal::BodyTooLarge { bytes_max: BODY_BYTES_MAX });
        }
        let within = self.client_timers().upload;
        match tokio::time::timeout(within, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Refusal::BodyTooLarge { bytes_max: BODY_BYTES_MAX })
            }
            Ok(Err(_broken)) => Err(Refusal::BodyBroken),
            Err(_elapsed) => Err(Refusal::UploadSlow { within }),
        }
    }
}

/// The targets that may be asked now. Those that rest by their own wish come last; where there is
/// nobody else, a policy orders them.
fn free(model: &Model, call: &Call) -> Result<Candidates, Refusal> {
    let now = Instant::now();
    let lane_of = |target: &Arc<crate::routes::Target>| target.lane(&model.name, &call.shape.model);
    let all = (0..)
        .zip(&model.targets)
        .map(|(id, target)| (id, Free { target: Arc::clone(target), lane: lane_of(target) }));
    let (mut free, mut resting, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for (id, one) in all {
        if one.lane.standing(now).is_none() {
            open.push(one.lane);
        } else if one.lane.bench(now).is_some() {
            resting.push((id, one));
        } else {
            free.push((id, one));
        }
    }
    // Who may be asked first, first.
    resting.sort_by_key(|(_, one): &(u32, Free)| one.lane.bench(now).map(|bench| bench.until));
    match (free.is_empty(), resting.is_empty()) {
        (false, _) => Ok(Candidates { free, resting }),
        (true, false) => Ok(Candidates { free: resting, resting: Vec::new() }),
        (true, true) => Err(Refusal::resting(open.iter())),
    }
}

/// Candidates as a policy sees them; a candidate's id is the place of its target.
fn candidates(free: &[(u32, Free)], call: &Call) -> Vec<Candidate> {
    let now = Instant::now();
    let (input_expected, input_worst) = call.input_tokens();
    let output_expected = call.output_limit.unwrap_or(u64::MAX).min(OUTPUT_TOKENS_EXPECTED);
    let output_worst = call.output_limit.unwrap_or(OUTPUT_TOKENS_WORST);
    let choices = u64::from(call.choices);
    let candidate = |(id, free): &(u32, Free)| {
        let target = &free.target;
        // A cost too large for a guest to see exactly is none: the target is shown as unpriced.
        let cost = |input, output: u64| {
            let cost = target.price.as_ref()?.worst(input, output.saturating_mul(choices)).ok()?;
            (cost.nanos() < NO_PRICE).then_some(cost)
        };
        let expected = cost(input_expected, output_expected).zip(cost(input_worst, output_worst));
        let stats = target.stats.snapshot();
        Candidate {
            id: *id,
            priority: target.priority,
            weight: target.weight,
            expected: expected.map_or(NO_PRICE, |(expected, _)| expected.nanos()),
            worst: expected.map_or(NO_PRICE, |(_, worst)| worst.nanos()),
            ewma_ttft_us: stats.ttft_us,
            ewma_total_us: stats.total_us,
            samples: stats.samples,
            success_permille: stats.success_permille,
            inflight: stats.inflight,
            breaker: match free.lane.standing(now) {
                Some(Standing::Closed) => BREAKER_CLOSED,
                Some(Standing::Open { .. } | Standing::HalfOpen { .. }) | None => BREAKER_HALF_OPEN,
            },
        }
    };
    free.iter().map(candidate).collect()
}

/// Whose decisions served: all from one snapshot.
fn log_answer(call: &Call, generation: u64, policy: Option<&Plugin>, answered: &Answered) {
    let adapter = &answered.by;
    tracing::debug!(
        request = call.request_id,
        generation,
        model = call.shape.model,
        upstream = answered.target.upstream.name,
        policy = policy.map(|policy| policy.manifest().id.as_str()),
        policy_version = policy.map(|policy| policy.manifest().version.as_str()),
        policy_digest = policy.map(Plugin::digest),
        adapter = adapter.manifest().id,
        adapter_version = adapter.manifest().version,
        adapter_digest = adapter.digest(),
        status = answered.answer.status().as_u16(),
        "answering"
    );
}

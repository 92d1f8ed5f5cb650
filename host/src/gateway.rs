//! The path of a request: one list, whose order is the design.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::Incoming;
use sluice_core::ranking::{self, NO_CAP, View};
use sluice_runtime::{Decided, Outcome, Plugin, Versioned};

use crate::attempts::{Answered, Attempts, Free};
use crate::auth::{self, Known};
use crate::call::{self, Call, SharedCall};
use crate::caller::Caller;
use crate::candidates::{self, Candidates};
use crate::charge::Tally;
use crate::config::{Budget, ClientTimers};
use crate::funding::Purse;
use crate::key_book::KeyBook;
use crate::market::Jobs;
use crate::measures::{Measures, ModelMeasures, RequestEnd, RequestMeasure};
use crate::money::Money;
use crate::rate_headers::Refused;
use crate::rates::{AllWanted, Part, Permit, Rates, Told};
use crate::refusal::{BudgetRefusal, Refusal};
use crate::routes::Model;
use crate::snapshot::Current;
use crate::stream::{Body, Client, Connection};
use crate::upload::{self, Room, Terms};

/// The model that answers, where it is not the one that was asked for.
const MODEL_HEADER: HeaderName = HeaderName::from_static("x-sluice-model");

/// Serves completions by the snapshot of the moment.
pub(crate) struct Gateway {
    current: Current,
    /// The ledger, where it could be opened.
    money: Option<Arc<Money>>,
    rates: Arc<Rates>,
    room: Arc<Room>,
    keys: Option<Arc<KeyBook>>,
    jobs: Option<Arc<Jobs>>,
    measures: Measures,
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

impl Gateway {
    pub(crate) fn new(
        current: Current,
        money: Option<Arc<Money>>,
        keys: Option<Arc<KeyBook>>,
        jobs: Option<Arc<Jobs>>,
        measures: &Measures,
    ) -> Gateway {
        Gateway {
            current,
            money,
            keys,
            jobs,
            rates: Arc::default(),
            room: Arc::default(),
            measures: measures.clone(),
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
            Err(refused) => {
                self.measures.refused(refused.refusal.code());
                RequestEnd::Refused
            }
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
        let (entry, body) = self.entry(&caller, &head.headers, body).await?; // nor does one too many
        let (text, share) = upload::read(&head.headers, body, &self.room, self.terms()).await?; // bounded and timed
        let text = call::given(text, caller.given_model())?; // a job gets the model that was bid with
        let call = Arc::new(Call::chat(request_id, head.headers, text)?.keeping(share)); // one scan
        let chosen = self.model(&call.shape.model, &caller)?; // from one snapshot, kept to the end
        counted.is_for(&chosen.model.measures);
        let purse = self.purse(&call, caller, entry, &chosen)?; // who pays: each attempt holds its worst case
        let deadline = tokio::time::Instant::now() + chosen.model.deadline;
        let client = Client { stalled: chosen.stalled, connection };
        let served = match self.serve(&call, &chosen, purse.as_ref(), deadline, client.clone()).await {
            Err(Refusal::Budget(why)) => {
                self.downgraded(&call, &chosen, purse.as_ref(), why, deadline, client).await // one hop, where it says so
            }
            served => served,
        };
        let told = purse.as_ref().map_or_else(Told::default, |purse| purse.tally.told());
        let mut answer = served.map_err(|refusal| Refused { refusal, told: Box::new(told) })?;
        told.write(answer.headers_mut());
        Ok(answer)
    }

    /// One model's answer.
    async fn serve(
        &self,
        call: &SharedCall,
        chosen: &Chosen,
        purse: Option<&Purse>,
        deadline: tokio::time::Instant,
        client: Client,
    ) -> Result<Response<Body>, Refusal> {
        let Chosen { generation, model, .. } = chosen;
        let free = candidates::free(model, call)?; // all that the host allows now
        let (order, ranked_by) = self.order(model, call, free); // a policy orders, and cannot widen
        let attempts = Attempts { model, call, chance: &self.chance, deadline, client, purse };
        let answered = attempts.run(&order).await?; // an adapter says what to send; until one answers
        log_answer(call, *generation, ranked_by.as_deref(), &answered);
        Ok(answered.answer)
    }

    /// The answer of the model that an exhausted budget names.
    async fn downgraded(
        &self,
        call: &Call,
        asked: &Chosen,
        purse: Option<&Purse>,
        why: Box<BudgetRefusal>,
        deadline: tokio::time::Instant,
        client: Client,
    ) -> Result<Response<Body>, Refusal> {
        let Some(purse) = purse else { return Err(Refusal::Budget(why)) };
        let (call, chosen) = self.cheaper(call, asked, purse, why)?;
        let mut answer = self.serve(&call, &chosen, Some(purse), deadline, client).await?;
        // A name that is no header is in the ledger.
        let name = HeaderValue::from_str(&call.shape.model);
        answer.headers_mut().extend(name.map(|name| (MODEL_HEADER, name)));
        Ok(answer)
    }

    /// What a budget that is exhausted wants to be asked for instead.
    ///
    /// # Errors
    ///
    /// The same refusal where it wants nothing else, or where the caller may not ask for that.
    fn cheaper(
        &self,
        call: &Call,
        asked: &Chosen,
        purse: &Purse,
        why: Box<BudgetRefusal>,
    ) -> Result<(SharedCall, Chosen), Refusal> {
        let budget = asked.budgets.iter().find(|budget| *budget.rule.name == *why.budget);
        let Some(name) = budget.and_then(|budget| budget.downgrade_to.as_deref()).filter(|_| why.exhausted)
        else {
            return Err(Refusal::Budget(why));
        };
        let chosen = match self.model(name, &purse.caller) {
            Ok(chosen) if name != call.shape.model => chosen,
            Ok(_) | Err(_) => return Err(Refusal::Budget(why)),
        };
        let call = Arc::new(call.for_model(name)?);
        // Names of one glob share its limits, which have let it pass.
        let permit = match Arc::ptr_eq(&chosen.model, &asked.model) {
            true => None,
            false => self.permit(chosen.model.wanted().into_iter().collect(), call.tokens_expected())?,
        };
        purse.tally.goes_on_with(chosen.model.name.as_str(), permit);
        tracing::debug!(request = call.request_id, budget = why.budget, model = name, "downgraded");
        Ok((call, chosen))
    }

    fn caller(&self, head: &Parts, connection: &Connection) -> Result<Caller, Refusal> {
        let access = &self.current.load().config.access;
        let known = Known { keys: self.keys.as_ref(), jobs: self.jobs.as_ref() };
        auth::caller(access, known, &head.headers, connection.peer())
    }

    /// A request and a place, before its body takes any room.
    async fn entry(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Option<Permit>, Incoming), Refusal> {
        match self.permit(caller.wanted(Part::Entry), 0) {
            Ok(permit) => Ok((permit, body)),
            Err(refusal) => {
                upload::discard(headers, body, self.client_timers().upload).await;
                Err(refusal)
            }
        }
    }

    fn terms(&self) -> Terms {
        let server = &self.current.load().config.server;
        Terms { within: server.timers.upload, bodies_bytes_max: server.bodies_bytes_max }
    }

    fn model(&self, name: &str, caller: &Caller) -> Result<Chosen, Refusal> {
        let snapshot = self.current.load();
        let (generation, timers) = (snapshot.generation, &snapshot.config.server.timers);
        let found = snapshot.routes.model(name).map(Arc::clone);
        let budgets = Arc::clone(&snapshot.config.budgets);
        let found = found.map(|model| Chosen { generation, model, stalled: timers.stalled_reader, budgets });
        if !caller.allows_model(name) {
            return Err(Refusal::ModelNotAllowed { model: name.chars().take(128).collect() });
        }
        found.ok_or_else(|| Refusal::NoSuchModel { model: name.chars().take(128).collect() })
    }

    /// None where nothing is capped, limited or written down. Without a ledger no budget can be kept.
    fn purse(
        &self,
        call: &Call,
        caller: Caller,
        entry: Option<Permit>,
        chosen: &Chosen,
    ) -> Result<Option<Purse>, Refusal> {
        let Chosen { model, budgets, .. } = chosen;
        if self.money.is_none() && budgets.iter().any(Budget::enforces) {
            return Err(Refusal::Ledger { reason: "closed" });
        }
        let mut wanted = caller.wanted(Part::Tokens);
        wanted.extend(model.wanted());
        let permit = match (entry, self.permit(wanted, call.tokens_expected())?) {
            (Some(entry), Some(rest)) => Some(entry.and(rest)),
            (entry, rest) => entry.or(rest),
        };
        // A stranger's calls are counted, not written down: nobody is charged for them.
        let is_booked = caller.is_known() || !budgets.is_empty();
        let is_limited = model.targets.iter().any(|target| !target.upstream.limits.is_none());
        if !is_booked && permit.is_none() && !is_limited {
            return Ok(None);
        }
        let (money, rates) = (self.money.clone().filter(|_| is_booked), Arc::clone(&self.rates));
        let tally = Tally::new(money.as_ref(), call, &caller, model.name.as_str(), permit);
        Ok(Some(Purse { money, rates, budgets: Arc::clone(budgets), caller, tally: Arc::new(tally) }))
    }

    /// What all of these let pass; none where nothing limits.
    fn permit(&self, wanted: AllWanted, tokens: u64) -> Result<Option<Permit>, Refusal> {
        if wanted.is_empty() {
            return Ok(None);
        }
        self.rates.take(wanted, tokens, Instant::now()).map(Some).map_err(Refusal::OverRate)
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
        let candidates = candidates::shown(model, free, call);
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

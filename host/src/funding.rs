//! Money for an attempt before it is sent: the worst case of its bytes is held, and the limit that
//! was paid for is written into them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use compact_str::format_compact;
use sluice_core::bound::{Ask, Bounds, Funding, Unbounded};
use sluice_core::json::{self, Edit, Index, Pointer, Raw};
use sluice_core::money::NanoUsd;
use sluice_core::plan::{BodyPlan, CallPlan, ResponsePlan};
use sluice_core::price::Price;
use sluice_ledger::budget::Drawn;
use sluice_ledger::hold::{Attempt, Hold};
use sluice_ledger::spending::NotHeld;

use crate::call::Call;
use crate::caller::Caller;
use crate::charge::{Charge, Tally};
use crate::config::Budget;
use crate::money::{Moment, Money, unix_ms};
use crate::rates::{AllWanted, Part, Permit, Rates, Wanted, Who};
use crate::refusal::{BudgetRefusal, Refusal};
use crate::routes::{Model, Target};

/// Where clients of OpenAI's wire say how long an answer may be. The vendor may go by any of them.
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// Where they say whether they want the usage of a stream.
const STREAM_OPTIONS: &str = "stream_options";
const INCLUDE_USAGE: &str = "include_usage";

/// A call's money.
pub(crate) struct Purse {
    /// None where nothing is written down.
    pub(crate) money: Option<Arc<Money>>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) budgets: Arc<[Budget]>,
    pub(crate) caller: Caller,
    pub(crate) tally: Arc<Tally>,
}

/// What may be sent, and who pays.
pub(crate) struct Funded {
    pub(crate) body: Bytes,
    pub(crate) charge: Option<Charge>,
    /// The host has asked for the usage: the client is not to see it.
    pub(crate) hides_usage: bool,
}

impl Purse {
    /// Holds what the attempt can cost at most.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the account, or what has no bound.
    pub(crate) async fn fund(
        &self,
        model: &Model,
        target: &Target,
        target_model: &str,
        call: &Call,
        plan: &CallPlan,
        body: Bytes,
    ) -> Result<Funded, Refusal> {
        let permit = self.permit(target, call)?;
        let Some(money) = &self.money else {
            let charge = Charge::new(&self.tally, target, target_model, None, permit);
            return counted(call, plan, body, charge);
        };
        let (asked, upstream) = (model.name.as_str(), target.upstream.name.as_str());
        let draws = money.draws(&self.budgets, &self.caller, asked, upstream, Moment::now())?;
        let charge = |hold| Charge::new(&self.tally, target, target_model, hold, permit);
        let attempt = || Attempt {
            request: call.request_id.as_str().into(),
            name: format_compact!("{}/{target_model}", target.upstream.name),
            at_ms: unix_ms(),
        };
        let Some(price) = target.price(target_model) else {
            if draws.wants_price {
                return Err(Refusal::Unpriced { model: model.name.as_str().into() });
            }
            if !draws.accounts.is_empty() {
                money.unpriced.fetch_add(1, Ordering::Relaxed);
            }
            return counted(call, plan, body, charge(None));
        };
        if draws.accounts.is_empty() {
            return counted(call, plan, body, charge(None));
        }
        let bounds = target.bounds(target_model);
        if !draws.enforces {
            // A shadow refuses nothing, and changes nothing that the client would notice.
            let amount = estimate(call, plan, &bounds, price, body.clone());
            let hold = money.spending.hold(&draws.accounts, amount, attempt()).await.ok();
            let charge = charge(hold.map(|hold| (hold, None)));
            let asked = if charge.counts() { usage_asked(call, plan, &body).ok().flatten() } else { None };
            return Ok(Funded::counted(body, asked, charge));
        }
        let Outbound { body, ask, index, hides_usage } = Outbound::read(call, plan, &bounds, body)?;
        let (funding, hold) = held(money, &draws.accounts, price, &ask, attempt).await?;
        let limit_at = plan.limit_at.as_ref().filter(|_| ask.limitable);
        let edits = edits(plan, limit_at, &body, &index, &funding, hides_usage);
        let body = match edits.is_empty() {
            true => body,
            false => json::splice(&body, &index, &edits).map_err(Refusal::Unfit)?.into(),
        };
        let output = funding.limit.saturating_mul(ask.choices);
        Ok(Funded { body, charge: Some(charge(Some((hold, Some(output))))), hides_usage })
    }

    /// What the upstream's own limits let pass.
    fn permit(&self, target: &Target, call: &Call) -> Result<Option<Permit>, Refusal> {
        if target.upstream.limits.is_none() {
            return Ok(None);
        }
        let who = Who::Upstream(target.upstream.name.as_str().into());
        let wanted = Wanted { who, limits: target.upstream.limits, part: Part::All };
        let permit = self.rates.take(AllWanted::from_iter([wanted]), call.tokens_expected(), Instant::now());
        permit.map(Some).map_err(Refusal::OverRate)
    }
}

fn refusal(money: &Money, why: NotHeld) -> Refusal {
    let (refused, exhausted) = match why {
        NotHeld::Store(reason) => return Refusal::Ledger { reason },
        NotHeld::Run(refused) => return Refusal::Run(refused),
        NotHeld::Held(refused) => (refused, false),
        NotHeld::Exhausted(refused) => (refused, true),
    };
    let Drawn { budget, key, resets_s } = refused.account;
    Refusal::Budget(Box::new(BudgetRefusal {
        exhausted,
        budget: budget.name.to_string(),
        scope: key.scope.to_string(),
        left: refused.rest.left,
        held: refused.rest.held,
        wanted: refused.amount,
        resets_in_s: resets_s.map(|resets_s| money.until(resets_s, Moment::now())),
    }))
}

/// Holds the worst case. Of an account that was not in memory nobody knew what is left of it: where a
/// call that names no limit does not fit, its share is reckoned once more by what the store has said.
async fn held(
    money: &Money,
    accounts: &[Drawn],
    price: &Price,
    ask: &Ask,
    attempt: impl Fn() -> Attempt,
) -> Result<(Funding, Hold), Refusal> {
    let fund = || {
        // Who names a limit wants no share.
        let (left, sharers) = match ask.limit {
            Some(_) => (NanoUsd::ZERO, 1),
            None => money.tightest(accounts),
        };
        ask.fund(price, left, sharers).map_err(Refusal::Unbounded)
    };
    let hold = async |funding: Funding| {
        let held = money.spending.hold(accounts, funding.amount, attempt()).await;
        held.map(|hold| (funding, hold))
    };
    let first = fund()?;
    let why = match hold(first).await {
        Ok(held) => return Ok(held),
        Err(why) => why,
    };
    let second = fund()?;
    match why {
        NotHeld::Held(_) | NotHeld::Exhausted(_) if second.amount < first.amount => {
            hold(second).await.map_err(|why| refusal(money, why))
        }
        NotHeld::Held(_) | NotHeld::Exhausted(_) | NotHeld::Run(_) | NotHeld::Store(_) => {
            Err(refusal(money, why))
        }
    }
}

/// What would be held if a budget were enforced that has enough; nothing where nobody can tell.
fn estimate(call: &Call, plan: &CallPlan, bounds: &Bounds, price: &Price, body: Bytes) -> NanoUsd {
    let outbound = Outbound::read(call, plan, bounds, body).ok();
    let plenty = NanoUsd::from_nanos(u64::MAX);
    let funding = outbound.and_then(|outbound| outbound.ask.fund(price, plenty, 1).ok());
    funding.map_or(NanoUsd::ZERO, |funding| funding.amount)
}

/// No money is held; where a limit counts tokens, the usage of a stream is asked for.
fn counted(call: &Call, plan: &CallPlan, body: Bytes, charge: Charge) -> Result<Funded, Refusal> {
    let asked = if charge.counts() { usage_asked(call, plan, &body)? } else { None };
    Ok(Funded::counted(body, asked, charge))
}

/// The body that also asks for the usage of its stream, if that is to be asked for.
fn usage_asked(call: &Call, plan: &CallPlan, body: &Bytes) -> Result<Option<Bytes>, Refusal> {
    if !call.shape.streaming {
        return Ok(None);
    }
    let index = call.index_of(body)?;
    if !lacks_usage(call, plan, body, &index)? {
        return Ok(None);
    }
    let edit = asks_usage(body, &index);
    let asked = json::splice(body, &index, edit.as_slice()).map_err(Refusal::Unfit)?;
    Ok(Some(asked.into()))
}

impl Funded {
    /// Nothing of the request is bounded. `asked`: the body that asks for the usage.
    fn counted(body: Bytes, asked: Option<Bytes>, charge: Charge) -> Funded {
        Funded { hides_usage: asked.is_some(), body: asked.unwrap_or(body), charge: Some(charge) }
    }
}

/// What an adapter has made of a request, read for its cost.
struct Outbound<'c> {
    body: Bytes,
    ask: Ask,
    index: Cow<'c, Index>,
    hides_usage: bool,
}

impl<'c> Outbound<'c> {
    fn read(call: &'c Call, plan: &CallPlan, bounds: &Bounds, body: Bytes) -> Result<Outbound<'c>, Refusal> {
        let index = call.index_of(&body)?;
        // Some vendors take a limit of nothing for none.
        let said = |raw: Option<&[u8]>| raw.and_then(json::as_u64).filter(|limit| *limit > 0);
        let mut limit = match &plan.limit_at {
            Some(at) => said(json::get(&body, &index, at).map_err(Refusal::Duplicate)?),
            None => None,
        };
        for other in others(plan) {
            let other = said(index.member(&body, other).map_err(Refusal::Duplicate)?);
            limit = limit.into_iter().chain(other).min();
        }
        let choices = call.choices.into();
        let lifts = call.may_lift_bounds();
        // What is longer than the context is not served, unless that is lifted.
        let usual = *bounds;
        let bounds =
            if lifts { Bounds { context: None, part: usual.part.or(usual.context), ..usual } } else { usual };
        let ask =
            Ask::read(&body, &bounds, limit, plan.limit_at.is_some(), choices).map_err(Refusal::Unbounded)?;
        if lifts && usual.context.is_some_and(|context| ask.input > context) {
            return Err(Refusal::Unbounded(Unbounded::Lifted));
        }
        let hides_usage = lacks_usage(call, plan, &body, &index)?;
        Ok(Outbound { body, ask, index, hides_usage })
    }
}

/// Members that bound the output, but for the one that the adapter names.
fn others(plan: &CallPlan) -> impl Iterator<Item = &'static str> + '_ {
    let named = plan.limit_at.as_ref().and_then(|at| at.as_str().strip_prefix('/'));
    LIMITS.into_iter().filter(move |limit| named != Some(*limit))
}

/// The same in other letters, as they stand in a body: a parser that is loose about case, as that of
/// Go's library, takes them for it, and of two goes by the later one.
fn lookalikes<'t>(body: &'t [u8], index: &'t Index) -> impl Iterator<Item = Pointer> + 't {
    // U+017F and U+212A are a small and a large letter of ASCII to it.
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    let is_one = move |key: &str| {
        !LIMITS.contains(&key) && LIMITS.iter().any(|limit| key.chars().map(fold).eq(limit.chars()))
    };
    index.keys(body).filter(move |key| is_one(key)).map(|key| Pointer::to_member(&key))
}

/// `limit_at`: where a limit goes, where there is to be one.
fn edits(
    plan: &CallPlan,
    limit_at: Option<&Pointer>,
    body: &[u8],
    index: &Index,
    funding: &Funding,
    hides_usage: bool,
) -> Vec<Edit> {
    let mut edits = Vec::new();
    let is_there = |pointer: &Pointer| matches!(json::get(body, index, pointer), Ok(Some(_)));
    if let Some(at) = limit_at {
        let others = others(plan).filter(|other| matches!(index.member(body, other), Ok(Some(_))));
        let others = others.map(Pointer::to_member).chain(lookalikes(body, index));
        edits.extend(others.map(|at| Edit::Remove { at }));
        if funding.write || !is_there(at) || !edits.is_empty() {
            edits.push(Edit::Set { at: at.clone(), value: Raw::from(funding.limit) });
        }
    }
    if hides_usage {
        edits.extend(asks_usage(body, index));
    }
    edits
}

/// The client streams and has not asked for the usage, and the vendor would tell.
fn lacks_usage(call: &Call, plan: &CallPlan, body: &[u8], index: &Index) -> Result<bool, Refusal> {
    let would_tell = || plan.response == ResponsePlan::SameWire && takes_stream_options(plan);
    if !call.shape.streaming || !would_tell() {
        return Ok(false);
    }
    let asked = json::get(body, index, &include_usage()).map_err(Refusal::Duplicate)?;
    Ok(asked != Some(b"true"))
}

fn asks_usage(body: &[u8], index: &Index) -> Option<Edit> {
    let options = Pointer::to_member(STREAM_OPTIONS);
    let found = json::get(body, index, &options).ok().flatten();
    let (at, value) = match found.is_some_and(|options| options.starts_with(b"{")) {
        true => (include_usage(), "true"),
        false => (options, r#"{"include_usage":true}"#),
    };
    Raw::parse(value).ok().map(|value| Edit::Set { at, value })
}

/// An adapter that takes the member out speaks to a vendor that does not know it.
fn takes_stream_options(plan: &CallPlan) -> bool {
    let BodyPlan::Edits(edits) = &plan.body else { return true };
    let options = Pointer::to_member(STREAM_OPTIONS);
    !edits.iter().any(|edit| matches!(edit, Edit::Remove { at } if *at == options))
}

fn include_usage() -> Pointer {
    Pointer::to_member(STREAM_OPTIONS).child(INCLUDE_USAGE)
}

//! A requester's side: its instances, who bids on them, the winner's answers, the reward.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::provider::provider_id;
use super::view::{ExchangeView, InstanceView, ProposalView};
use super::{Asked, Reply, json_type};
use crate::market::call::{self, Endpoint};
use crate::market::detail::Refused;
use crate::market::fields::Fields;
use crate::market::instance::{Exchange, Instance, Status, Verdict};
use crate::market::job::{self, Job};
use crate::market::life;
use crate::market::money::{NanoUsd, Share};
use crate::market::script::JobKind;
use crate::market::state::State;

/// Longest that an instance may be open, or a reward awaited: 10 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 86_400);

/// What an account asks for, beside the job.
struct Conditions {
    /// Ids of providers; None is all.
    allowed: Option<Vec<String>>,
    estimate_max: Option<NanoUsd>,
}

/// Puts an instance on the market. Its credit is held until it is final.
pub(super) fn create(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let fields = asked.take_fields()?;
    let market = asked.market();
    let (job, Conditions { allowed, estimate_max }) = read_job(fields, Job::of_account(&market.script, 0))?;
    let (index, reply) = market.change(|state| {
        let requester = state.accounts.get(account).ok_or_else(|| Refused::not_found("User not found"))?;
        let credit = job.credit;
        let poor =
            || Refused::new(StatusCode::PAYMENT_REQUIRED, "Insufficient balance to create the instance");
        let rest = requester.wallet.minus(credit).ok_or_else(poor)?;
        let full = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "Too many instances");
        // Its id is drawn here, where no other request can draw the same.
        let Job { key, id, .. } = Job::of_account(&market.script, state.made);
        let job = Job { key, id, ..job };
        let index = state.place(job, &market.script, market.now()).ok_or_else(full)?;
        state.made += 1;
        if let Some(requester) = state.accounts.get_mut(account) {
            requester.wallet = rest;
            requester.held = requester.held.plus(credit).unwrap_or(requester.held);
        }
        let instance = state.instances.get_mut(index).ok_or_else(full)?;
        instance.requester = Some(account);
        instance.allowed = allowed;
        instance.estimate_max = estimate_max;
        let reply = Reply::json(StatusCode::CREATED, &InstanceView::of(instance, market))?;
        Ok((index, reply))
    })?;
    asked.running.lives(index);
    Ok(reply)
}

pub(super) fn for_current_user(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (market, account, wanted) = (asked.market(), asked.account()?, asked.status_wanted()?);
    market.read(|state| {
        let own = state.instances.iter().filter(|instance| instance.requester == Some(account));
        let fits = own.filter(|instance| wanted.is_none_or(|code| instance.status.code() == code));
        Reply::ok(&fits.map(|instance| InstanceView::of(instance, market)).collect::<Vec<_>>())
    })
}

pub(super) fn winning_providers(asked: Asked<'_>) -> Result<Reply, Refused> {
    asked.market().read(|state| {
        let (_, instance) = state.find(asked.id)?;
        let winner = instance.won_by().map(|winner| provider_id(state, winner.bidder));
        Reply::ok(&winner.into_iter().collect::<Vec<_>>())
    })
}

pub(super) fn involved_providers(asked: Asked<'_>) -> Result<Reply, Refused> {
    let id = asked.wanted("instance_id")?;
    let now = asked.market().now();
    asked.market().read(|state| {
        let (_, instance) = state.find(id)?;
        let come = instance.proposals.iter().filter(|proposal| proposal.at <= now);
        let mut ids: Vec<String> = come.map(|proposal| provider_id(state, proposal.bidder)).collect();
        ids.sort();
        ids.dedup();
        Reply::ok(&ids)
    })
}

/// All proposals that have come; for the instance's requester alone.
pub(super) fn proposals_by_instance(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (market, account) = (asked.market(), asked.account()?);
    market.read(|state| {
        let (_, instance) = own(state, asked.id, account)?;
        let come = instance.proposals.iter().filter(|proposal| proposal.at <= market.now());
        let view =
            |proposal| ProposalView::of(proposal, instance, market, |bidder| provider_id(state, bidder));
        Reply::ok(&come.map(view).collect::<Vec<_>>())
    })
}

/// Asks the winner, and passes on what it says.
pub(super) async fn complete(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    let messages = fields.list("messages");
    let model = fields.text("model");
    let stream = fields.flag_if_any("stream").unwrap_or(false);
    fields.done()?;
    let market = asked.market();
    let (index, endpoint) = market.read(|state| {
        let (index, instance) = own(state, asked.id, account)?;
        if instance.status != Status::Resolved {
            return Err(Refused::bad_request("Instance is not resolved"));
        }
        let endpoint = instance.won_by().and_then(Endpoint::of);
        Ok((index, endpoint.ok_or_else(|| Refused::bad_request("The winning provider has no endpoint"))?))
    })?;
    let body = json!({ "model": model, "messages": messages, "stream": stream });
    let deadline = market.now() + Duration::from_millis(market.script.requesters.call_timeout_ms.into());
    let (answer, row) = call::made(market, &endpoint, &body, deadline).await;
    let failed = row.verdict == Verdict::Failed;
    let why = row.why.clone().unwrap_or_default();
    let at = market.now();
    let exchange = answer.as_ref().map(|answer| Exchange { request: body, response: answer.shown(), at });
    market.change(|state| state.books_call(index, row, exchange));
    match answer {
        Some(answer) if !failed => {
            let content_type = answer.content_type.unwrap_or_else(json_type);
            Ok(Reply { status: answer.status, content_type, body: answer.body })
        }
        Some(_) | None => Err(Refused::new(StatusCode::BAD_GATEWAY, format!("The provider failed: {why}"))),
    }
}

pub(super) fn completions(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (market, account) = (asked.market(), asked.account()?);
    market.read(|state| {
        let (_, instance) = own(state, asked.id, account)?;
        let exchanges = instance.exchanges.iter();
        Reply::ok(&exchanges.map(|exchange| ExchangeView::of(exchange, instance, market)).collect::<Vec<_>>())
    })
}

/// Reports the reward; without one, the market estimates it: the bid.
pub(super) fn report_reward(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    let gen_reward = fields.amount_if_any("gen_reward");
    fields.done()?;
    let market = asked.market();
    market.change(|state| {
        let (index, instance) = own(state, asked.id, account)?;
        if instance.status != Status::Resolved || market.now() >= instance.reward_ends {
            return Err(Refused::bad_request("Instance takes no reward now"));
        }
        match gen_reward {
            Some(gen_reward) if instance.job.percentage.of(gen_reward) > instance.job.credit => {
                return Err(Refused::bad_request("gen_reward pays more than max_credit_per_instance"));
            }
            Some(gen_reward) => state.finalize(index, gen_reward),
            None => life::finalize(state, index, 1_000),
        }
        Reply::ok(&InstanceView::of(state.find(asked.id)?.1, market))
    })
}

/// Fills in a job from a body.
fn read_job(mut fields: Fields, blank: Job) -> Result<(Job, Conditions), Refused> {
    let background = fields.text("background");
    let credit = fields.amount("max_credit_per_instance");
    let mut millis = |name, default: u64| {
        let time = fields.seconds_if_any(name).filter(|time| *time <= TIMEOUT_MAX);
        time.map_or(default, |time| u64::try_from(time.as_millis()).unwrap_or(default))
    };
    let open_ms = millis("instance_timeout", blank.open_ms);
    let reward_timeout_ms = millis("gen_reward_timeout", blank.reward_timeout_ms);
    let percentage = fields.share_if_any("percentage_reward").unwrap_or(Share::WHOLE);
    let messages = Value::Array(fields.list_if_any("messages").unwrap_or_default());
    let model = fields.name_if_any("model").unwrap_or_else(|| blank.model.clone());
    let agent = fields.flag_if_any("representative_agent").unwrap_or(false);
    let allowed = fields.list_if_any("allowed_providers").filter(|ids| !ids.is_empty());
    let text = |id: &Value| id.as_str().map(str::to_owned);
    let conditions = Conditions {
        allowed: allowed.map(|ids| ids.iter().filter_map(text).collect()),
        estimate_max: fields.amount_if_any("max_reward_for_estimation"),
    };
    fields.text_if_any("prompt_template");
    fields.flag_if_any("side_effect_free");
    fields.done()?;
    let kind = if agent { JobKind::Agent } else { JobKind::Completion };
    let prompt_words = job::words_of(&messages);
    let class = "account".to_owned();
    let job =
        Job { class, background, credit, open_ms, reward_timeout_ms, percentage, messages, model, ..blank };
    Ok((Job { kind, prompt_words, ..job }, conditions))
}

/// An instance that the account put on the market.
fn own<'a>(state: &'a State, id: &str, account: usize) -> Result<(usize, &'a Instance), Refused> {
    let (index, instance) = state.find(id)?;
    if instance.requester != Some(account) {
        return Err(Refused::forbidden("Not the requester of this instance"));
    }
    Ok((index, instance))
}

//! How instances, proposals and messages look on the wire.

use serde::Serialize;
use serde_json::Value;

use crate::market::instance::{Bidder, Exchange, Instance, Message, Proposal};
use crate::market::money::{NanoUsd, Share};
use crate::market::running::Market;
use crate::market::script::JobKind;

#[derive(Serialize)]
pub(super) struct InstanceView<'a> {
    id: &'a str,
    background: &'a str,
    max_credit_per_instance: NanoUsd,
    status: u8,
    creation_date: String,
    instance_timeout_datetime: String,
    gen_reward_timeout_datetime: String,
    payload: Payload<'a>,
    representative_agent: bool,
    percentage_reward: Share,
    gen_reward: Option<NanoUsd>,
    max_reward_for_estimation: Option<NanoUsd>,
}

#[derive(Serialize)]
struct Payload<'a> {
    messages: &'a Value,
    model: &'a str,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct ProposalView<'a> {
    id: &'a str,
    instance_id: &'a str,
    provider_id: String,
    max_bid: NanoUsd,
    endpoint: Option<&'a str>,
    status: u8,
    creation_date: String,
}

#[derive(Serialize)]
pub(super) struct MessageView<'a> {
    sender: &'static str,
    message: &'a str,
    timestamp: String,
}

#[derive(Serialize)]
pub(super) struct ExchangeView<'a> {
    instance_id: &'a str,
    request: &'a Value,
    response: &'a Value,
    creation_date: String,
}

// === impl InstanceView ===

impl InstanceView<'_> {
    pub(super) fn of<'a>(instance: &'a Instance, market: &Market) -> InstanceView<'a> {
        let job = &instance.job;
        InstanceView {
            id: &job.id,
            background: &job.background,
            max_credit_per_instance: job.credit,
            status: instance.status.code(),
            creation_date: market.date(instance.arrived),
            instance_timeout_datetime: market.date(instance.closes),
            gen_reward_timeout_datetime: market.date(instance.reward_ends),
            payload: Payload {
                messages: &job.messages,
                model: &job.model,
                stream: job.stream,
                max_tokens: job.max_tokens,
            },
            representative_agent: job.kind == JobKind::Agent,
            percentage_reward: job.percentage,
            gen_reward: instance.gen_reward,
            max_reward_for_estimation: instance.estimate_max,
        }
    }
}

// === impl ProposalView ===

impl ProposalView<'_> {
    /// `provider_of` knows a bidder's id.
    pub(super) fn of<'a>(
        proposal: &'a Proposal,
        instance: &'a Instance,
        market: &Market,
        provider_of: impl Fn(Bidder) -> String,
    ) -> ProposalView<'a> {
        ProposalView {
            id: &proposal.id,
            instance_id: &instance.job.id,
            provider_id: provider_of(proposal.bidder),
            max_bid: proposal.amount,
            endpoint: proposal.endpoint.as_deref(),
            status: proposal.status.code(),
            creation_date: market.date(proposal.at),
        }
    }
}

// === impl MessageView ===

impl MessageView<'_> {
    pub(super) fn of<'a>(message: &'a Message, market: &Market) -> MessageView<'a> {
        let sender = if message.from_provider { "provider" } else { "requester" };
        MessageView { sender, message: &message.text, timestamp: market.date(message.at) }
    }
}

// === impl ExchangeView ===

impl ExchangeView<'_> {
    pub(super) fn of<'a>(
        exchange: &'a Exchange,
        instance: &'a Instance,
        market: &Market,
    ) -> ExchangeView<'a> {
        ExchangeView {
            instance_id: &instance.job.id,
            request: &exchange.request,
            response: &exchange.response,
            creation_date: market.date(exchange.at),
        }
    }
}

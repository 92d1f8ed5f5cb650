//! What the market says, checked: instances, proposals, balances, messages.
//!
//! Members that nobody here asks for are ignored. Amounts are exact, and instants are milliseconds
//! since the Unix epoch.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_core::money::NanoUsd;

use super::wire::{self, amount, debt_as_zero, instant_ms, nanos, optional_amount};

/// Instances that are taken of one answer at most: more than anybody bids on between two looks.
pub(crate) const INSTANCES_MAX: usize = 1000;

/// Proposals likewise. The market gives all that there ever were.
pub(crate) const PROPOSALS_MAX: usize = 100_000;

/// Messages of a chat likewise.
pub(crate) const MESSAGES_MAX: usize = 1000;

/// Characters of an id at most.
const ID_CHARS_MAX: usize = 64;

/// Billionths in a whole.
const WHOLE: u64 = 1_000_000_000;

/// What an instance is found by: letters, digits, `-` and `_`. Fit for a path and for a log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InstanceId(String);

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted an instance's id: 1 to {ID_CHARS_MAX} letters, digits, - and _")]
pub(crate) struct NotAnInstanceId;

/// A job that somebody wants done.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    /// What it is about, in the requester's words.
    pub(crate) background: String,
    /// The most that the requester pays.
    pub(crate) credit: NanoUsd,
    pub(crate) status: InstanceStatus,
    /// When bidding ends.
    pub(crate) closes_at_ms: Option<u64>,
    /// Until when the requester can say what it was worth.
    pub(crate) reward_due_at_ms: Option<u64>,
    /// The conversation that is to be completed: a JSON array, as it came. None: it was not said.
    pub(crate) messages: Option<Box<RawValue>>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) stream: Option<bool>,
    /// What the requester found it worth, before `percentage_reward`.
    pub(crate) gen_reward: Option<NanoUsd>,
    pub(crate) percentage_reward: Option<Share>,
    /// It is done by messages in a chat, not by a completion.
    pub(crate) is_agent: bool,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstanceStatus {
    /// Bids are taken.
    Open,
    /// Somebody has won.
    Resolved,
    Failed,
    /// The reward is settled.
    Finalized,
    /// A code that we do not know.
    Other(i64),
}

/// A part of a whole, from 0 to 1, in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u64);

/// A bid of ours, as the market has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) instance_id: InstanceId,
    pub(crate) status: ProposalStatus,
    pub(crate) created_at_ms: Option<u64>,
}

/// What became of a bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProposalStatus {
    Pending,
    /// It has won.
    Awarded,
    /// A code that we do not know.
    Other(i64),
}

/// Money on the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    /// What can be used; nothing where the account is in debt.
    pub(crate) wallet: NanoUsd,
    /// What is set aside.
    pub(crate) held: NanoUsd,
    /// As the market writes it, such as `usd`.
    pub(crate) currency: String,
}

/// Who is logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
}

/// A message of a job that is done in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChatMessage {
    pub(crate) sender: Sender,
    pub(crate) message: String,
    pub(crate) at_ms: Option<u64>,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Provider,
    Requester,
    Other,
}

/// A list of the market's. What could not be read does not spoil the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    /// Items that are not what the contract says.
    pub(crate) bad: usize,
    /// Items beyond the bound, which were not looked at.
    pub(crate) beyond: usize,
}

#[derive(Deserialize)]
struct RawInstance<'a> {
    id: String,
    background: Option<String>,
    #[serde(borrow)]
    max_credit_per_instance: &'a RawValue,
    status: i64,
    instance_timeout_datetime: Option<String>,
    gen_reward_timeout_datetime: Option<String>,
    payload: Option<RawPayload<'a>>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    stream: Option<bool>,
    gen_reward: Option<&'a RawValue>,
    percentage_reward: Option<&'a RawValue>,
    representative_agent: Option<bool>,
}

/// What a client would send for a completion.
#[derive(Default, Deserialize)]
struct RawPayload<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    stream: Option<bool>,
}

#[derive(Deserialize)]
struct RawProposal {
    instance_id: String,
    status: i64,
    creation_date: Option<String>,
}

#[derive(Deserialize)]
struct RawBalance<'a> {
    #[serde(borrow)]
    wallet_balance: &'a RawValue,
    #[serde(borrow)]
    held_balance: Option<&'a RawValue>,
    currency: Option<String>,
}

#[derive(Deserialize)]
struct RawMessage {
    sender: String,
    message: String,
    timestamp: Option<String>,
}

impl InstanceId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = NotAnInstanceId;

    fn from_str(text: &str) -> Result<InstanceId, NotAnInstanceId> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let good = (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain);
        if good { Ok(InstanceId(text.to_owned())) } else { Err(NotAnInstanceId) }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Sender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sender::Provider => "provider",
            Sender::Requester => "requester",
            Sender::Other => "other",
        }
    }
}

impl InstanceStatus {
    pub(crate) fn of(code: i64) -> InstanceStatus {
        match code {
            0 => InstanceStatus::Open,
            3 => InstanceStatus::Resolved,
            5 => InstanceStatus::Failed,
            7 => InstanceStatus::Finalized,
            other => InstanceStatus::Other(other),
        }
    }
}

impl ProposalStatus {
    pub(crate) fn of(code: i64) -> ProposalStatus {
        match code {
            0 => ProposalStatus::Pending,
            1 => ProposalStatus::Awarded,
            other => ProposalStatus::Other(other),
        }
    }
}

impl Share {
    /// None: it is less than nothing, or more than the whole.
    fn of(raw: &RawValue) -> Option<Share> {
        nanos(raw).filter(|share| *share <= WHOLE).map(Share)
    }

    /// This part of an amount, rounded down: what we get is not overstated.
    pub(crate) fn part_of(self, amount: NanoUsd) -> NanoUsd {
        let part = u128::from(amount.nanos()) * u128::from(self.0) / u128::from(WHOLE);
        // No part is more than the whole, which fits.
        u64::try_from(part).map_or(amount, NanoUsd::from_nanos)
    }
}

impl Instance {
    /// None: something that one has to know of it is missing, or is not what the contract says.
    pub(super) fn read(text: &RawValue) -> Option<Instance> {
        let raw: RawInstance<'_> = serde_json::from_str(text.get()).ok()?;
        let payload = raw.payload.unwrap_or_default();
        let messages = match payload.messages.or(raw.messages) {
            Some(messages) if messages.get().starts_with('[') => Some(messages.to_owned()),
            Some(_) => return None,
            None => None,
        };
        let limit = payload.max_completion_tokens.or(payload.max_tokens);
        Some(Instance {
            id: raw.id.parse().ok()?,
            background: raw.background.unwrap_or_default(),
            credit: amount(raw.max_credit_per_instance)?,
            status: InstanceStatus::of(raw.status),
            closes_at_ms: instant_ms(raw.instance_timeout_datetime.as_deref())?,
            reward_due_at_ms: instant_ms(raw.gen_reward_timeout_datetime.as_deref())?,
            messages,
            max_tokens: limit.or(raw.max_completion_tokens).or(raw.max_tokens),
            stream: payload.stream.or(raw.stream),
            gen_reward: optional_amount(raw.gen_reward)?,
            percentage_reward: raw.percentage_reward.map(|raw| Share::of(raw).ok_or(())).transpose().ok()?,
            is_agent: raw.representative_agent == Some(true),
        })
    }
}

impl Proposal {
    pub(super) fn read(text: &RawValue) -> Option<Proposal> {
        let raw: RawProposal = serde_json::from_str(text.get()).ok()?;
        Some(Proposal {
            instance_id: raw.instance_id.parse().ok()?,
            status: ProposalStatus::of(raw.status),
            created_at_ms: instant_ms(raw.creation_date.as_deref())?,
        })
    }
}

impl Balance {
    pub(super) fn read(text: &RawValue) -> Option<Balance> {
        let raw: RawBalance<'_> = serde_json::from_str(text.get()).ok()?;
        Some(Balance {
            wallet: debt_as_zero(raw.wallet_balance)?,
            held: raw.held_balance.map_or(Some(NanoUsd::ZERO), debt_as_zero)?,
            currency: wire::printable(raw.currency.as_deref().unwrap_or("usd"), 16),
        })
    }
}

impl ChatMessage {
    pub(super) fn read(text: &RawValue) -> Option<ChatMessage> {
        let raw: RawMessage = serde_json::from_str(text.get()).ok()?;
        let sender = match raw.sender.as_str() {
            "provider" => Sender::Provider,
            "requester" => Sender::Requester,
            _ => Sender::Other,
        };
        Some(ChatMessage { sender, message: raw.message, at_ms: instant_ms(raw.timestamp.as_deref())? })
    }
}

#[cfg(test)]
mod tests;

//! What a market saw: each instance with its bids, calls and reward, and each provider with its doings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::market::instance::{Bidder, CallRow, Instance, Proposal, ProposalStatus, Status};
use crate::market::money::{NanoUsd, Share};
use crate::market::running::Market;
use crate::market::script::{JobKind, MarketScript};
use crate::market::state::State;

/// The books of a market at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct MarketBooks {
    pub market: String,
    pub totals: MarketTotals,
    /// In the order of arrival.
    pub instances: Vec<InstanceRow>,
    /// The accounts in the order of their registration, then the rivals.
    pub providers: Vec<ProviderRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MarketTotals {
    pub instances: u64,
    pub open: u64,
    pub resolved: u64,
    pub failed: u64,
    pub finalized: u64,
    /// Failed or finalized.
    #[serde(rename = "final")]
    pub final_: u64,
    pub bids: u64,
    pub calls: u64,
    /// Paid to accounts, in dollars.
    pub paid: NanoUsd,
    /// Requests by route, of whoever; `unknown` are those for which there is none.
    pub requests: BTreeMap<&'static str, u64>,
}

/// One instance.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceRow {
    pub id: String,
    pub class: String,
    pub kind: JobKind,
    pub status: Status,
    pub stream: bool,
    pub prompt_words: u64,
    pub max_tokens: Option<u32>,
    /// How many calls the job makes.
    pub calls_wanted: u32,
    pub credit: NanoUsd,
    pub percentage_reward: Share,
    /// `in_full`, `late`, `never` or `account`.
    pub manner: String,
    /// Since the market began.
    pub arrived_ms: u64,
    pub bids: Vec<BidRow>,
    /// The provider's name.
    pub winner: Option<String>,
    pub calls: Vec<CallRow>,
    pub gen_reward: Option<NanoUsd>,
    /// What the winner got, in dollars.
    pub paid: NanoUsd,
    /// Why it failed.
    pub why: Option<String>,
}

/// One bid; a rival's may be still to come.
#[derive(Clone, Debug, Serialize)]
pub struct BidRow {
    pub provider: String,
    pub amount: NanoUsd,
    /// Since the instance arrived.
    pub after_ms: u64,
    pub status: ProposalStatus,
}

/// One account, or one rival.
#[derive(Clone, Debug, Serialize)]
pub struct ProviderRow {
    /// The account's username; `rival-0-flat` for the first rival of the script.
    pub name: String,
    pub id: Option<String>,
    pub rival: bool,
    pub proposals: ProposalTotals,
    pub won: u64,
    /// Requests by route.
    pub requests: BTreeMap<&'static str, u64>,
    /// What it was paid for what it won, in dollars.
    pub earned: NanoUsd,
    /// Its wallet, and what is held of it; None for rivals.
    pub balance: Option<NanoUsd>,
    pub held: Option<NanoUsd>,
}

/// Proposals of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProposalTotals {
    pub received: u64,
    /// By the status that they were answered with.
    pub by_status: BTreeMap<u16, u64>,
    /// For an instance that had one of the provider already.
    pub duplicates: u64,
}

// === impl MarketBooks ===

impl MarketBooks {
    pub(crate) fn of(market: &Market, state: &State) -> MarketBooks {
        let names = |bidder| name(bidder, &market.script, state);
        let accounts = (0..state.accounts.iter().count()).map(Bidder::Account);
        let rivals = (0..market.script.rivals.len()).map(Bidder::Rival);
        MarketBooks {
            market: market.name.clone(),
            totals: MarketTotals::of(state),
            instances: state.instances.iter().map(|instance| InstanceRow::of(instance, names)).collect(),
            providers: accounts
                .chain(rivals)
                .map(|bidder| ProviderRow::of(bidder, names(bidder), state))
                .collect(),
        }
    }

    /// The row of the provider of this name.
    pub fn provider(&self, name: &str) -> Option<&ProviderRow> {
        self.providers.iter().find(|provider| provider.name == name)
    }
}

// === impl MarketTotals ===

impl MarketTotals {
    fn of(state: &State) -> MarketTotals {
        let mut totals = MarketTotals { requests: state.requests.clone(), ..MarketTotals::default() };
        for instance in &state.instances {
            totals.instances += 1;
            totals.final_ += u64::from(instance.status.is_final());
            let of_status = match instance.status {
                Status::Open => &mut totals.open,
                Status::Resolved => &mut totals.resolved,
                Status::Failed => &mut totals.failed,
                Status::Finalized => &mut totals.finalized,
            };
            *of_status += 1;
            totals.bids += instance.proposals.len() as u64;
            totals.calls += instance.calls.len() as u64;
            if let Some(Bidder::Account(_)) = instance.won_by().map(|winner| winner.bidder) {
                totals.paid = totals.paid.plus(instance.paid).unwrap_or(totals.paid);
            }
        }
        totals
    }
}

// === impl InstanceRow ===

impl InstanceRow {
    fn of(instance: &Instance, names: impl Fn(Bidder) -> String) -> InstanceRow {
        let job = &instance.job;
        let bid = |proposal: &Proposal| BidRow {
            provider: names(proposal.bidder),
            amount: proposal.amount,
            after_ms: millis(proposal.at.saturating_sub(instance.arrived)),
            status: proposal.status,
        };
        InstanceRow {
            id: job.id.clone(),
            class: job.class.clone(),
            kind: job.kind,
            status: instance.status,
            stream: job.stream,
            prompt_words: job.prompt_words,
            max_tokens: job.max_tokens,
            calls_wanted: job.calls,
            credit: job.credit,
            percentage_reward: job.percentage,
            manner: job.manner.name().to_owned(),
            arrived_ms: millis(instance.arrived),
            bids: instance.proposals.iter().map(bid).collect(),
            winner: instance.won_by().map(|winner| names(winner.bidder)),
            calls: instance.calls.clone(),
            gen_reward: instance.gen_reward,
            paid: instance.paid,
            why: instance.why_failed.clone(),
        }
    }
}

// === impl ProviderRow ===

impl ProviderRow {
    fn of(bidder: Bidder, name: String, state: &State) -> ProviderRow {
        let account = match bidder {
            Bidder::Account(index) => state.accounts.get(index),
            Bidder::Rival(_) => None,
        };
        let bids = state.instances.iter().flat_map(|instance| &instance.proposals);
        let rival_bids = bids.filter(|proposal| proposal.bidder == bidder).count() as u64;
        let proposals = match account {
            Some(account) => ProposalTotals {
                received: account.tally.proposals.values().sum(),
                by_status: account.tally.proposals.clone(),
                duplicates: account.tally.duplicates,
            },
            None => ProposalTotals { received: rival_bids, ..ProposalTotals::default() },
        };
        let is_winner =
            |instance: &&Instance| instance.won_by().is_some_and(|winner| winner.bidder == bidder);
        let won: Vec<&Instance> = state.instances.iter().filter(is_winner).collect();
        let earned = won.iter().try_fold(NanoUsd::ZERO, |sum, instance| sum.plus(instance.paid));
        ProviderRow {
            name,
            id: account.map(|account| account.id.clone()),
            rival: account.is_none(),
            proposals,
            won: won.len() as u64,
            requests: account.map(|account| account.tally.requests.clone()).unwrap_or_default(),
            earned: earned.unwrap_or_default(),
            balance: account.map(|account| account.wallet),
            held: account.map(|account| account.held),
        }
    }
}

/// What the books call somebody.
fn name(bidder: Bidder, script: &MarketScript, state: &State) -> String {
    match bidder {
        Bidder::Account(index) => {
            state.accounts.get(index).map(|account| account.username.clone()).unwrap_or_default()
        }
        Bidder::Rival(index) => {
            let kind = script.rivals.get(index).map_or("", |rival| rival.kind());
            format!("rival-{index}-{kind}")
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

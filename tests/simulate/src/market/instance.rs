//! One instance, from its arrival to its end: the bids on it, who wins, what becomes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::market::job::Job;
use crate::market::money::NanoUsd;
use crate::market::script::JobKind;

/// Most messages of one thread: 1,000.
pub(crate) const MESSAGES_MAX: usize = 1_000;

/// Most calls of one instance that are kept, and most exchanges: 100.
const CALLS_MAX: usize = 100;

/// Where an instance stands; the API knows it by [`Status::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It takes proposals.
    Open,
    /// It has a winner.
    Resolved,
    /// Nobody bid, or the winner did not do it.
    Failed,
    /// It was done and is paid, be it with nothing.
    Finalized,
}

/// Who bids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bidder {
    /// By index in the script.
    Rival(usize),
    /// By index of the account.
    Account(usize),
}

/// Where a proposal stands; the API knows it by [`ProposalStatus::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalStatus {
    Pending,
    Awarded,
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) id: String,
    pub(crate) bidder: Bidder,
    pub(crate) amount: NanoUsd,
    /// Since the market began; a rival's may be still to come.
    pub(crate) at: Duration,
    pub(crate) status: ProposalStatus,
    pub(crate) endpoint: Option<String>,
    pub(crate) endpoint_key: Option<String>,
}

/// What the market saw of one call of a winner's endpoint.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CallRow {
    /// None if there was no answer.
    pub status: Option<u16>,
    pub streamed: bool,
    pub verdict: Verdict,
    /// Why it is not good.
    pub why: Option<String>,
    /// As the answer's usage says.
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    /// Until its last byte.
    pub took_ms: u64,
}

/// What a requester thinks of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A completion that says something.
    #[default]
    Good,
    /// As good, and too late.
    Late,
    /// A completion that says nothing.
    Bad,
    /// No completion.
    Failed,
}

/// What a participant says in an instance's thread.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) from_provider: bool,
    pub(crate) text: String,
    pub(crate) at: Duration,
}

/// A conversation of the requester with the winner's endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Value,
    pub(crate) response: Value,
    pub(crate) at: Duration,
}

#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) job: Job,
    /// The account that put it on the market; None for the season's and for given ones.
    pub(crate) requester: Option<usize>,
    /// Providers that may bid; None is all.
    pub(crate) allowed: Option<Vec<String>>,
    pub(crate) estimate_max: Option<NanoUsd>,
    /// Since the market began, as all its times.
    pub(crate) arrived: Duration,
    pub(crate) closes: Duration,
    pub(crate) reward_ends: Duration,
    pub(crate) status: Status,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) winner: Option<usize>,
    /// How often each account made a proposal that was right.
    pub(crate) attempts: BTreeMap<usize, u64>,
    pub(crate) calls: Vec<CallRow>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) thread: Vec<Message>,
    pub(crate) gen_reward: Option<NanoUsd>,
    /// What the winner got.
    pub(crate) paid: NanoUsd,
    pub(crate) why_failed: Option<String>,
}

// === impl Status ===

impl Status {
    pub(crate) fn code(self) -> u8 {
        match self {
            Status::Open => 0,
            Status::Resolved => 3,
            Status::Failed => 5,
            Status::Finalized => 7,
        }
    }

    pub(crate) fn is_final(self) -> bool {
        match self {
            Status::Failed | Status::Finalized => true,
            Status::Open | Status::Resolved => false,
        }
    }
}

// === impl ProposalStatus ===

impl ProposalStatus {
    pub(crate) fn code(self) -> u8 {
        match self {
            ProposalStatus::Pending => 0,
            ProposalStatus::Awarded => 1,
            ProposalStatus::Lost => 2,
        }
    }
}

// === impl Instance ===

impl Instance {
    pub(crate) fn new(job: Job, arrived: Duration) -> Instance {
        let closes = arrived + Duration::from_millis(job.open_ms);
        let reward_ends = closes + Duration::from_millis(job.reward_timeout_ms);
        Instance {
            job,
            requester: None,
            allowed: None,
            estimate_max: None,
            arrived,
            closes,
            reward_ends,
            status: Status::Open,
            proposals: Vec::new(),
            winner: None,
            attempts: BTreeMap::new(),
            calls: Vec::new(),
            exchanges: Vec::new(),
            thread: Vec::new(),
            gen_reward: None,
            paid: NanoUsd::ZERO,
            why_failed: None,
        }
    }

    /// Open -> Resolved, or Open -> Failed if nobody bid: the lowest bid wins,
    /// of equal ones the earliest. Rivals' bids that were still to come count.
    pub(crate) fn close(&mut self, now: Duration) {
        if self.status != Status::Open {
            return;
        }
        self.closes = self.closes.min(now);
        self.reward_ends = self.closes + Duration::from_millis(self.job.reward_timeout_ms);
        let bids = self.proposals.iter().enumerate();
        self.winner = bids.min_by_key(|(index, bid)| (bid.amount, bid.at, *index)).map(|(index, _)| index);
        for (index, proposal) in self.proposals.iter_mut().enumerate() {
            let won = self.winner == Some(index);
            proposal.status = if won { ProposalStatus::Awarded } else { ProposalStatus::Lost };
        }
        match self.winner {
            Some(_) => self.status = Status::Resolved,
            None => {
                self.status = Status::Failed;
                self.why_failed = Some("no proposals".to_owned());
            }
        }
    }

    /// Resolved -> Failed; says whether it was resolved.
    pub(crate) fn fail(&mut self, why: &str) -> bool {
        if self.status != Status::Resolved {
            return false;
        }
        self.status = Status::Failed;
        self.why_failed = Some(why.to_owned());
        true
    }

    /// Resolved -> Finalized: the reward that was reported or estimated. The
    /// answer is what the winner is to get; None if it was not resolved.
    pub(crate) fn finalize(&mut self, gen_reward: NanoUsd) -> Option<NanoUsd> {
        if self.status != Status::Resolved {
            return None;
        }
        self.status = Status::Finalized;
        self.gen_reward = Some(gen_reward);
        self.paid = self.job.percentage.of(gen_reward);
        Some(self.paid)
    }

    pub(crate) fn won_by(&self) -> Option<&Proposal> {
        self.winner.and_then(|winner| self.proposals.get(winner))
    }

    pub(crate) fn bids_of(&self, account: usize) -> impl Iterator<Item = &Proposal> {
        self.proposals.iter().filter(move |proposal| proposal.bidder == Bidder::Account(account))
    }

    pub(crate) fn is_won_by(&self, account: usize) -> bool {
        self.won_by().is_some_and(|winner| winner.bidder == Bidder::Account(account))
    }

    pub(crate) fn books_call(&mut self, row: CallRow) {
        if self.calls.len() < CALLS_MAX {
            self.calls.push(row);
        }
    }

    /// Whether it has the bids that it closes after.
    pub(crate) fn has_bids_awaited(&self) -> bool {
        let bids = self.proposals.iter().filter(|proposal| match proposal.bidder {
            Bidder::Account(_) => true,
            Bidder::Rival(_) => false,
        });
        self.job.close_after_bids.is_some_and(|awaited| bids.count() >= awaited.get() as usize)
    }

    pub(crate) fn keeps_exchange(&mut self, exchange: Exchange) {
        if self.exchanges.len() < CALLS_MAX {
            self.exchanges.push(exchange);
        }
    }

    /// Whether the winner delivered in the thread.
    pub(crate) fn has_delivery(&self) -> bool {
        self.thread.iter().any(|message| message.from_provider && !message.text.trim().is_empty())
    }

    pub(crate) fn is_agent(&self) -> bool {
        match self.job.kind {
            JobKind::Agent => true,
            JobKind::Completion => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bidder, Instance, Proposal, ProposalStatus, Status};
    use crate::market::job::Job;
    use crate::market::money::NanoUsd;
    use crate::market::script::MarketScript;

    fn with_bids(bids: &[(u64, u64)]) -> Instance {
        let mut instance = Instance::new(Job::of_account(&MarketScript::default(), 1), Duration::ZERO);
        instance.proposals = bids
            .iter()
            .map(|(nanos, at_ms)| Proposal {
                id: String::new(),
                bidder: Bidder::Account(0),
                amount: NanoUsd::from_nanos(*nanos),
                at: Duration::from_millis(*at_ms),
                status: ProposalStatus::Pending,
                endpoint: None,
                endpoint_key: None,
            })
            .collect();
        instance
    }

    #[test]
    fn the_lowest_bid_wins_and_of_equal_ones_the_earliest() {
        for (bids, winner) in [
            (&[(3, 1), (2, 2), (4, 0)][..], 1),
            (&[(2, 5), (2, 3), (2, 4)], 1),
            (&[(2, 3), (2, 3)], 0),
            (&[(9, 9)], 0),
        ] {
            let mut instance = with_bids(bids);
            instance.close(Duration::ZERO);
            assert_eq!((instance.status, instance.winner), (Status::Resolved, Some(winner)), "{bids:?}");
            let awarded =
                instance.proposals.iter().filter(|bid| bid.status == ProposalStatus::Awarded).count();
            assert_eq!(awarded, 1, "{bids:?}");
        }
        let mut none = with_bids(&[]);
        none.close(Duration::ZERO);
        assert_eq!((none.status, none.winner), (Status::Failed, None));
    }

    /// What comes late changes nothing: an end is an end.
    #[test]
    fn an_end_is_final() {
        let reward = NanoUsd::from_nanos(5);
        let mut open = with_bids(&[(5, 1)]);
        assert!(!open.fail("early") && open.finalize(reward).is_none());
        open.close(Duration::ZERO);
        assert_eq!(open.finalize(reward), Some(reward));
        assert!(!open.fail("late") && open.finalize(reward).is_none());
        open.close(Duration::ZERO);
        assert_eq!(open.status, Status::Finalized);
        let mut failed = with_bids(&[(5, 1)]);
        failed.close(Duration::ZERO);
        assert!(failed.fail("broken") && failed.finalize(reward).is_none() && !failed.fail("again"));
        assert_eq!(failed.status, Status::Failed);
    }
}

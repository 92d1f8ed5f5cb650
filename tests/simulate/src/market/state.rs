//! All that a market knows at one moment, and the changes that touch more than one part of it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::StatusCode;

use crate::market::account::Accounts;
use crate::market::chance::{Chance, Purpose};
use crate::market::detail::Refused;
use crate::market::fault::FaultsLeft;
use crate::market::instance::{Bidder, CallRow, Exchange, Instance, Proposal, ProposalStatus, Status};
use crate::market::job::Job;
use crate::market::money::NanoUsd;
use crate::market::rival;
use crate::market::script::{Duplicates, INSTANCES_MAX, MarketScript};

/// Most proposals of one account for one instance, where second ones are taken: 16.
const DUPLICATES_MAX: usize = 16;

/// Most bytes of prompts, messages and answers that are kept: 512 MiB.
const KEPT_BYTES_MAX: usize = 512 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) accounts: Accounts,
    pub(crate) instances: Vec<Instance>,
    by_id: HashMap<String, usize>,
    pub(crate) faults: FaultsLeft,
    /// Requests by route, of whoever.
    pub(crate) requests: BTreeMap<&'static str, u64>,
    /// An account asked for instances.
    pub(crate) scanned: bool,
    /// Instances that tests gave, and that accounts made.
    pub(crate) given: u64,
    pub(crate) made: u64,
    kept_bytes: usize,
}

/// What a provider proposes.
pub(crate) struct Offer {
    pub(crate) amount: NanoUsd,
    pub(crate) endpoint: Option<String>,
    pub(crate) endpoint_key: Option<String>,
}

// === impl State ===

impl State {
    pub(crate) fn new(script: &MarketScript) -> State {
        State {
            accounts: Accounts::new(script.seed, &script.accounts),
            instances: Vec::new(),
            by_id: HashMap::new(),
            faults: FaultsLeft::new(script.faults.clone()),
            requests: BTreeMap::new(),
            scanned: false,
            given: 0,
            made: 0,
            kept_bytes: 0,
        }
    }

    /// The instance of this id and its index.
    pub(crate) fn find(&self, id: &str) -> Result<(usize, &Instance), Refused> {
        let found = self.by_id.get(id).and_then(|index| Some((*index, self.instances.get(*index)?)));
        found.ok_or_else(|| Refused::not_found("Instance not found"))
    }

    /// Whether there is room to keep so many bytes more; if so, they count from now on.
    pub(crate) fn keeps(&mut self, bytes: usize) -> bool {
        let kept = self.kept_bytes.saturating_add(bytes);
        let fits = kept <= KEPT_BYTES_MAX;
        if fits {
            self.kept_bytes = kept;
        }
        fits
    }

    pub(crate) fn finals(&self) -> usize {
        self.instances.iter().filter(|instance| instance.status.is_final()).count()
    }

    /// Puts a job on the market, with what rivals will bid on it. The answer
    /// is its index; None if the market is full.
    pub(crate) fn place(&mut self, job: Job, script: &MarketScript, now: Duration) -> Option<usize> {
        if self.instances.len() >= INSTANCES_MAX || !self.keeps(job.messages.to_string().len()) {
            return None;
        }
        let bids = rival::bids(&script.rivals, script.seed, &job, script.bid_min);
        let mut instance = Instance::new(job, now);
        let [origin, number] = instance.job.key;
        for bid in bids {
            let after_us = instance.job.open_ms.saturating_mul(u64::from(bid.after_permille));
            let identity = [2, origin, number, bid.rival as u64];
            instance.proposals.push(Proposal {
                id: Chance::of(script.seed, Purpose::Identity, &identity).uuid(),
                bidder: Bidder::Rival(bid.rival),
                amount: bid.amount,
                at: now + Duration::from_micros(after_us),
                status: ProposalStatus::Pending,
                endpoint: None,
                endpoint_key: None,
            });
        }
        let index = self.instances.len();
        self.by_id.insert(instance.job.id.clone(), index);
        self.instances.push(instance);
        Some(index)
    }

    /// Takes a provider's proposal.
    pub(crate) fn propose(
        &mut self,
        account: usize,
        id: &str,
        offer: Offer,
        script: &MarketScript,
        now: Duration,
    ) -> Result<Proposal, Refused> {
        let (index, instance) = self.find(id)?;
        let earlier = instance.bids_of(account).count();
        let [origin, number] = instance.job.key;
        if earlier > 0
            && let Some(account) = self.accounts.get_mut(account)
        {
            account.tally.duplicates += 1;
        }
        self.may_propose(account, index, &offer, script, now)?;
        let missing = || Refused::not_found("Instance not found");
        let instance = self.instances.get_mut(index).ok_or_else(missing)?;
        let attempt = instance.attempts.entry(account).or_default();
        *attempt += 1;
        if let Some(refuse) = &script.refuse {
            let numbers = [origin, number, account as u64, *attempt];
            if Chance::of(script.seed, Purpose::Refusal, &numbers).hits(refuse.permille) {
                return Err(Refused::new(refuse.status, refuse.detail.clone()));
            }
        }
        let identity = [3, origin, number, account as u64, earlier as u64];
        let proposal = Proposal {
            id: Chance::of(script.seed, Purpose::Identity, &identity).uuid(),
            bidder: Bidder::Account(account),
            amount: offer.amount,
            at: now,
            status: ProposalStatus::Pending,
            endpoint: offer.endpoint,
            endpoint_key: offer.endpoint_key,
        };
        instance.proposals.push(proposal.clone());
        Ok(proposal)
    }

    /// Ends a resolved instance without a reward.
    pub(crate) fn fail(&mut self, index: usize, why: &str) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        if instance.fail(why) {
            let (requester, credit) = (instance.requester, instance.job.credit);
            self.release(requester, credit, NanoUsd::ZERO);
        }
    }

    /// Ends a resolved instance with the reward that was reported or
    /// estimated, and pays the winner's part of it.
    pub(crate) fn finalize(&mut self, index: usize, gen_reward: NanoUsd) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(paid) = instance.finalize(gen_reward) else { return };
        let (requester, credit) = (instance.requester, instance.job.credit);
        if let Some(Bidder::Account(winner)) = instance.won_by().map(|winner| winner.bidder) {
            self.accounts.credit(winner, paid);
        }
        self.release(requester, credit, paid);
    }

    /// Books a call, and keeps what was said if there is an account that may ask for it.
    pub(crate) fn books_call(&mut self, index: usize, row: CallRow, exchange: Option<Exchange>) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        instance.books_call(row);
        let Some(exchange) = exchange.filter(|_| instance.requester.is_some()) else { return };
        let bytes = exchange.request.to_string().len() + exchange.response.to_string().len();
        if self.keeps(bytes)
            && let Some(instance) = self.instances.get_mut(index)
        {
            instance.keeps_exchange(exchange);
        }
    }

    /// Whether the proposal is one that the market takes.
    fn may_propose(
        &self,
        account: usize,
        index: usize,
        offer: &Offer,
        script: &MarketScript,
        now: Duration,
    ) -> Result<(), Refused> {
        let (Some(instance), Some(provider)) = (self.instances.get(index), self.accounts.get(account)) else {
            return Err(Refused::not_found("Instance not found"));
        };
        let not_allowed = |allowed: &Vec<String>| !allowed.contains(&provider.id);
        let earlier = instance.bids_of(account).count();
        if instance.status != Status::Open || now >= instance.closes {
            return Err(Refused::bad_request("Instance is not open for proposals"));
        }
        if offer.amount > instance.job.credit {
            return Err(Refused::bad_request("max_bid is higher than max_credit_per_instance"));
        }
        if offer.amount < script.bid_min {
            return Err(Refused::bad_request(format!(
                "max_bid is lower than the minimum of {}",
                script.bid_min
            )));
        }
        if provider.wallet == NanoUsd::ZERO {
            return Err(Refused::new(
                StatusCode::PAYMENT_REQUIRED,
                "Insufficient balance to create proposals",
            ));
        }
        if instance.allowed.as_ref().is_some_and(not_allowed) {
            return Err(Refused::forbidden("Provider is not allowed for this instance"));
        }
        match script.duplicates {
            Duplicates::Refuse if earlier > 0 => {
                Err(Refused::new(StatusCode::CONFLICT, "Proposal already exists for this instance"))
            }
            Duplicates::Accept if earlier >= DUPLICATES_MAX => {
                Err(Refused::new(StatusCode::CONFLICT, "Too many proposals for this instance"))
            }
            Duplicates::Refuse | Duplicates::Accept => Ok(()),
        }
    }

    /// Gives back to the account that asked what it did not have to pay.
    pub(crate) fn release(&mut self, requester: Option<usize>, credit: NanoUsd, paid: NanoUsd) {
        let Some(requester) = requester.and_then(|requester| self.accounts.get_mut(requester)) else {
            return;
        };
        requester.held = requester.held.minus(credit).unwrap_or_default();
        let rest = credit.minus(paid).unwrap_or_default();
        requester.wallet = requester.wallet.plus(rest).unwrap_or(requester.wallet);
    }
}

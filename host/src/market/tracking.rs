//! What becomes of jobs that were bid on: who has them, what they cost, what was paid.
//!
//! The market tells nobody: it is asked. A completion job that is ours is called for, which says more
//! than any list; so our proposals as the market has them, which are all that there ever were, are
//! compared now and then only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::money::NanoUsd;
use sluice_ledger::market::{Job, Outcome, State};
use sluice_ledger::store::StoreError;
use tokio::task::JoinSet;

use super::bidder::{Bidder, Halt, Link, Poll};
use super::contract::{Instance, InstanceStatus, ProposalStatus};
use super::error::MarketError;
use super::jobs::Known;
use crate::config;
use crate::money::unix_ms;

/// Jobs that are asked for in one look, and at once.
const POLLS_MAX: usize = 64;
const POLLS_AT_ONCE: usize = 8;

/// Between two questions for one job at most.
const POLL_MOST: Duration = Duration::from_secs(30);

/// How long after its reward was due a job may still be paid.
const LATE_MS: u64 = 60_000;

/// Where it is not known whether the market has a proposal, it may still be about to take it: for longer
/// than a call may last.
const SENDING_MS: u64 = 20_000;

/// How a job has ended, as far as that is known before its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The market did not take the proposal.
    Refused,
    /// It takes no more of it; what whoever had it was paid.
    Over { ours: bool, earned: NanoUsd },
}

/// What the market says of one job.
enum Said {
    Of(Box<Instance>),
    /// It does not know it.
    Unknown,
    /// Nothing that makes sense.
    Nonsense,
}

impl Bidder {
    /// Asks what has become of what is under way. Whatever fails, what was learned counts.
    pub(super) async fn track(&mut self, link: &Link, market: &config::Market) -> Result<(), Halt> {
        self.note_won().await?;
        let mut came = Ok(());
        if self.resync_is_due(market) {
            self.resynced = Some(Instant::now());
            came = self.resync(link).await;
        }
        if market.agents == config::Agents::Model && came.is_ok() {
            self.answer_threads(link, market);
        }
        if came.is_ok() {
            let (learned, polled) = self.poll(link, market).await;
            came = polled;
            self.settle(learned).await?;
        }
        came
    }

    /// Jobs that were called for are ours, and are so after a restart.
    pub(super) async fn note_won(&mut self) -> Result<(), Halt> {
        let won = self.jobs.newly_won();
        self.set_states(won.into_iter().map(|id| (id, State::Won)).collect()).await
    }

    fn resync_is_due(&self, market: &config::Market) -> bool {
        let rests = self.resynced.is_some_and(|at| at.elapsed() < market.resync_every);
        !rests && !self.jobs.list(|job| job.state != State::Won).is_empty()
    }

    /// Which of our proposals the market has, and which have won. A list that makes no sense is no reason
    /// to do nothing else: it is of all that there ever were.
    async fn resync(&mut self, link: &Link) -> Result<(), Halt> {
        // Whether a key may ask is not documented: who is not told goes on without.
        self.balance = link.client.balance(&link.who).await.ok().map(|balance| balance.wallet);
        let listed = match link.client.my_proposals(&link.who).await {
            Ok(listed) => listed,
            Err(error) if is_of_one(&error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(%error, "our proposals cannot be compared with the market's");
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.blind = false;
        let whole = listed.bad == 0 && listed.beyond == 0;
        let theirs: HashMap<&str, ProposalStatus> =
            listed.items.iter().map(|proposal| (proposal.instance_id.as_str(), proposal.status)).collect();
        let now_ms = unix_ms();
        let (mut states, mut gone) = (Vec::new(), Vec::new());
        for job in self.jobs.list(|job| job.state != State::Won) {
            let waits = now_ms < job.closes_ms.min(job.bid_ms.saturating_add(SENDING_MS));
            match theirs.get(job.id.as_str()) {
                Some(ProposalStatus::Awarded) => states.push((job.id, State::Won)),
                Some(status) => {
                    if matches!(status, ProposalStatus::Other(_)) {
                        self.jobs.deny(&job.id);
                    }
                    if job.state == State::Sending {
                        states.push((job.id, State::Open));
                    }
                }
                // It never got there.
                None if whole && job.state == State::Sending && !waits => gone.push((job, Ended::Refused)),
                None => {}
            }
        }
        self.set_states(states).await?;
        self.end(gone).await
    }

    /// Asks for jobs that something may have become of.
    async fn poll(&mut self, link: &Link, market: &config::Market) -> (Vec<(Job, Said)>, Result<(), Halt>) {
        let (now, now_ms) = (Instant::now(), unix_ms());
        // Of what is open there is no news before it closes.
        let closed = self.jobs.list(|job| job.state == State::Won || job.closes_ms <= now_ms);
        let followed: HashSet<&str> = closed.iter().map(|job| job.id.as_str()).collect();
        self.polls.retain(|id, _| followed.contains(id.as_str()));
        let is_due = |job: &Job| self.polls.get(&job.id).is_none_or(|poll| poll.next <= now);
        let mut due: Vec<Job> = closed.into_iter().filter(is_due).collect();
        due.sort_unstable_by_key(|job| job.closes_ms);
        due.truncate(POLLS_MAX);
        let (mut asked, mut learned, mut came) = (JoinSet::new(), Vec::new(), Ok(()));
        let mut due = due.into_iter();
        loop {
            while asked.len() < POLLS_AT_ONCE
                && came.is_ok()
                && let Some(job) = due.next()
            {
                let wait = self.polls.get(&job.id).map_or(market.scan_every, |poll| poll.wait * 2);
                let wait = wait.min(POLL_MOST);
                self.polls.insert(job.id.clone(), Poll { next: now + wait, wait });
                let link = link.clone();
                asked.spawn(async move {
                    let said = match job.id.parse() {
                        Ok(id) => link.client.instance(&link.who, &id).await,
                        Err(_) => Err(MarketError::Garbage { why: "a job of ours has no good id" }),
                    };
                    (job, said)
                });
            }
            match asked.join_next().await {
                None => return (learned, came),
                Some(Ok((job, Ok(instance)))) => learned.push((job, Said::Of(Box::new(instance)))),
                Some(Ok((job, Err(MarketError::Refused { status: 404 | 410, .. })))) => {
                    learned.push((job, Said::Unknown));
                }
                // Nobody else's job has to wait for it.
                Some(Ok((job, Err(error)))) if is_of_one(&error) => learned.push((job, Said::Nonsense)),
                Some(Ok((_, Err(error)))) => came = Err(Halt::from(error)),
                Some(Err(_ended)) => {}
            }
        }
    }

    async fn settle(&mut self, learned: Vec<(Job, Said)>) -> Result<(), Halt> {
        let now_ms = unix_ms();
        let ended = learned.into_iter().filter_map(|(job, said)| {
            // It may have been called for since.
            let known = self.jobs.known(&job.id)?;
            let ended = fate(&job, known, &said, now_ms)?;
            Some((job, ended))
        });
        self.end(ended.collect()).await
    }

    pub(super) async fn set_states(&self, states: Vec<(String, State)>) -> Result<(), Halt> {
        if states.is_empty() {
            return Ok(());
        }
        let states = self.stored(move |store| {
            store.set_states(states.iter().map(|(id, state)| (id.as_str(), *state)))?;
            Ok(states)
        });
        for (id, state) in states.await? {
            self.jobs.set_state(&id, state);
        }
        Ok(())
    }

    /// Jobs have ended: their keys do not work any more, and they are in the report. One of which a call
    /// is under way ends later.
    pub(super) async fn end(&mut self, ended: Vec<(Job, Ended)>) -> Result<(), Halt> {
        let mut taken = Vec::with_capacity(ended.len());
        let mut ending = Vec::with_capacity(ended.len());
        for (job, ended) in ended {
            let Some(found) = self.jobs.end(&job.id) else { continue };
            // Whoever was let in has money held before it lets its share of the key go.
            if self.money.is_drawn_on(&job.id) {
                self.jobs.put_back(vec![found]);
                continue;
            }
            taken.push(found);
            ending.push((job, ended));
        }
        if ending.is_empty() {
            return Ok(());
        }
        let money = Arc::clone(&self.money);
        let stored = self.stored(move |store| {
            // What calls have cost is in the store when this has been waited for.
            money.spending.flush().map_err(|_| StoreError::Locked)?;
            let mut jobs = Vec::with_capacity(ending.len());
            for (job, ended) in ending {
                let (cost, ended_ms) = (store.spent(&job.id)?, Some(unix_ms()));
                let (outcome, earned) = outcome(ended, cost);
                jobs.push(Job { state: State::Ended(outcome), cost, earned, ended_ms, ..job });
            }
            store.end(&jobs)?;
            Ok(jobs)
        });
        let jobs = match stored.await {
            Ok(jobs) => jobs,
            Err(error) => {
                self.jobs.put_back(taken);
                return Err(error.into());
            }
        };
        for job in jobs {
            self.records.ended(&job);
            let Job { id, strategy, state, bid, cost, earned, .. } = &job;
            let state = state.name();
            tracing::info!(job = id, strategy, state, %bid, %cost, %earned, "a job has ended");
        }
        Ok(())
    }
}

/// What has become of a job that takes no bids any more; none: nobody can tell yet.
fn fate(job: &Job, known: Known, said: &Said, now_ms: u64) -> Option<Ended> {
    let over = |earned| Some(Ended::Over { ours: known.ours, earned });
    if let Said::Of(instance) = said {
        match instance.status {
            InstanceStatus::Failed => return over(NanoUsd::ZERO),
            InstanceStatus::Finalized => {
                let whole = instance.gen_reward.unwrap_or(NanoUsd::ZERO);
                let earned = instance.percentage_reward.map_or(whole, |share| share.part_of(whole));
                // The requester pays no more than that; what is said beyond is a mistake.
                return over(earned.min(job.credit));
            }
            InstanceStatus::Open | InstanceStatus::Resolved | InstanceStatus::Other(_) => {}
        }
    }
    let is_over = match said {
        Said::Unknown => now_ms >= job.due_ms,
        Said::Of(_) | Said::Nonsense => now_ms >= job.due_ms.saturating_add(LATE_MS),
    };
    let is_lost = known.denied && !known.ours;
    if is_over || is_lost { over(NanoUsd::ZERO) } else { None }
}

/// Who was called has had it, whatever is said.
fn outcome(ended: Ended, cost: NanoUsd) -> (Outcome, NanoUsd) {
    let served = cost > NanoUsd::ZERO;
    match ended {
        Ended::Refused if !served => (Outcome::Refused, NanoUsd::ZERO),
        Ended::Over { ours: false, .. } if !served => (Outcome::Lost, NanoUsd::ZERO),
        Ended::Over { earned, .. } if earned > NanoUsd::ZERO => (Outcome::Paid, earned),
        Ended::Refused | Ended::Over { .. } if served => (Outcome::Unpaid, NanoUsd::ZERO),
        Ended::Refused | Ended::Over { .. } => (Outcome::Failed, NanoUsd::ZERO),
    }
}

/// A failure that says nothing of other jobs.
fn is_of_one(error: &MarketError) -> bool {
    match error {
        MarketError::Garbage { .. }
        | MarketError::Refused { .. }
        | MarketError::Balance { .. }
        | MarketError::Server { .. } => true,
        MarketError::Unreachable { .. }
        | MarketError::Timeout
        | MarketError::Throttled { .. }
        | MarketError::Unauthorized { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs;
    use super::*;

    const DUE_MS: u64 = 1_000_000;

    fn usd(nanos: u64) -> NanoUsd {
        NanoUsd::from_nanos(nanos)
    }

    fn job() -> Job {
        Job { due_ms: DUE_MS, ..jobs::tests::job("a", State::Open) }
    }

    fn says(status: i64, gen_reward: &str) -> Said {
        let text = format!(
            r#"{{"id":"a","max_credit_per_instance":1,"status":{status},"gen_reward":{gen_reward},"percentage_reward":0.5}}"#
        );
        let raw = serde_json::value::RawValue::from_string(text).unwrap();
        Said::Of(Box::new(Instance::read(&raw).unwrap()))
    }

    #[test]
    fn a_job_ends_by_the_markets_word_or_by_the_clock() {
        let (ours, open) = (Known { ours: true, denied: false }, Known { ours: false, denied: false });
        let denied = Known { denied: true, ..open };
        let over = |ours, earned| Some(Ended::Over { ours, earned: usd(earned) });
        let late = DUE_MS + LATE_MS;
        for (known, said, now_ms, wanted) in [
            (ours, says(3, "null"), DUE_MS, None),
            (ours, says(3, "null"), late, over(true, 0)),
            (open, says(3, "null"), 5, None),
            (denied, says(3, "null"), 5, over(false, 0)),
            (Known { ours: true, denied: true }, says(3, "null"), 5, None),
            (ours, says(5, "null"), 5, over(true, 0)),
            (ours, says(7, "0.00000004"), 5, over(true, 20)),
            (ours, says(7, "5"), 5, over(true, 100)),
            (ours, says(7, "null"), 5, over(true, 0)),
            (ours, Said::Unknown, DUE_MS - 1, None),
            (ours, Said::Unknown, DUE_MS, over(true, 0)),
            (ours, Said::Nonsense, late - 1, None),
            (ours, Said::Nonsense, late, over(true, 0)),
        ] {
            assert_eq!(fate(&job(), known, &said, now_ms), wanted, "{known:?} at {now_ms}");
        }
    }

    #[test]
    fn what_cost_something_was_served_whatever_is_said() {
        let over = |ours, earned| Ended::Over { ours, earned: usd(earned) };
        for (ended, cost, wanted) in [
            (Ended::Refused, 0, (Outcome::Refused, 0)),
            (Ended::Refused, 1, (Outcome::Unpaid, 0)),
            (over(false, 9), 0, (Outcome::Lost, 0)),
            (over(false, 9), 1, (Outcome::Paid, 9)),
            (over(true, 9), 0, (Outcome::Paid, 9)),
            (over(true, 0), 1, (Outcome::Unpaid, 0)),
            (over(true, 0), 0, (Outcome::Failed, 0)),
        ] {
            let (outcome, earned) = outcome(ended, usd(cost));
            assert_eq!((outcome, earned.nanos()), wanted, "{ended:?}, {cost}");
        }
    }
}

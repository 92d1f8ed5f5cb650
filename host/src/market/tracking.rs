//! What becomes of jobs that were bid on: who has them, what they cost, what was paid.
//!
//! The market tells nobody: it is asked. A completion job that is ours is called for, which says more
//! than any list; so our proposals as the market has them, which are all that there ever were, are
//! compared now and then only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::money::NanoUsd;
use sluice_ledger::market::{Ending, Job, Outcome, State};
use tokio::task::JoinSet;

use super::bidder::{Bidder, Halt, Link, Poll};
use super::contract::{Instance, InstanceStatus, ProposalStatus};
use super::error::MarketError;
use crate::config;
use crate::money::unix_ms;

/// Jobs that are asked for in one look, and at once.
const POLLS_MAX: usize = 64;
const POLLS_AT_ONCE: usize = 8;

/// Between two questions for one job at most.
const POLL_MOST: Duration = Duration::from_secs(30);

/// How long after its reward was due a job may still be paid.
const LATE_MS: u64 = 60_000;

/// What is to be done about a job.
enum Fate {
    Goes(State),
    Ends(Outcome, NanoUsd),
}

impl Bidder {
    /// Asks what has become of what is under way.
    pub(super) async fn track(&mut self, link: &Link, market: &config::Market) -> Result<(), Halt> {
        self.note_won().await?;
        if self.resync_is_due(market) {
            self.resync(link).await?;
        }
        let polled = self.poll(link, market).await;
        self.settle(&polled.0).await?;
        polled.1
    }

    /// Jobs that the market has called us for are ours.
    async fn note_won(&self) -> Result<(), Halt> {
        let won = self.jobs.newly_won();
        self.set_states(won.into_iter().map(|id| (id, State::Won)).collect()).await
    }

    fn resync_is_due(&self, market: &config::Market) -> bool {
        let rests = self.resynced.is_some_and(|at| at.elapsed() < market.resync_every);
        !rests && !self.jobs.list(|job| job.state != State::Won).is_empty()
    }

    /// Which of our proposals the market has, and which have won.
    async fn resync(&mut self, link: &Link) -> Result<(), Halt> {
        let listed = link.client.my_proposals(&link.who).await?;
        self.resynced = Some(Instant::now());
        let whole = listed.bad == 0 && listed.beyond == 0;
        let theirs: HashMap<&str, ProposalStatus> =
            listed.items.iter().map(|proposal| (proposal.instance_id.as_str(), proposal.status)).collect();
        let (mut states, mut gone) = (Vec::new(), Vec::new());
        for job in self.jobs.list(|job| job.state != State::Won) {
            match theirs.get(job.id.as_str()) {
                Some(ProposalStatus::Awarded) => states.push((job.id, State::Won)),
                Some(ProposalStatus::Pending | ProposalStatus::Other(_)) if job.state == State::Sending => {
                    states.push((job.id, State::Open));
                }
                // It never got there; the job may still be open.
                None if whole && job.state == State::Sending => gone.push(job),
                Some(ProposalStatus::Pending | ProposalStatus::Other(_)) | None => {}
            }
        }
        self.set_states(states).await?;
        self.end(gone.into_iter().map(|job| (job, Outcome::Refused, NanoUsd::ZERO)).collect()).await
    }

    /// Asks for jobs that something may have become of. What was learned counts, whatever fails then.
    async fn poll(
        &mut self,
        link: &Link,
        market: &config::Market,
    ) -> (Vec<(Job, Option<Instance>)>, Result<(), Halt>) {
        let (now, now_ms) = (Instant::now(), unix_ms());
        // Of what is open there is no news before it closes.
        let closed = self.jobs.list(|job| job.state == State::Won || job.closes_ms <= now_ms);
        let followed: HashSet<&str> = closed.iter().map(|job| job.id.as_str()).collect();
        self.polls.retain(|id, _| followed.contains(id.as_str()));
        let mut due: Vec<Job> = closed
            .into_iter()
            .filter(|job| self.polls.get(&job.id).is_none_or(|poll| poll.next <= now))
            .collect();
        due.sort_unstable_by_key(|job| job.closes_ms);
        due.truncate(POLLS_MAX);
        for job in &due {
            let wait = self.polls.get(&job.id).map_or(market.scan_every, |poll| poll.wait * 2).min(POLL_MOST);
            self.polls.insert(job.id.clone(), Poll { next: now + wait, wait });
        }
        let (mut asked, mut learned, mut came) = (JoinSet::new(), Vec::new(), Ok(()));
        let mut due = due.into_iter();
        loop {
            while asked.len() < POLLS_AT_ONCE
                && came.is_ok()
                && let Some(job) = due.next()
            {
                let link = link.clone();
                asked.spawn(async move {
                    let said = match job.id.parse() {
                        Ok(id) => link.client.instance(&link.who, &id).await.map(Some),
                        Err(_) => Ok(None),
                    };
                    (job, said)
                });
            }
            match asked.join_next().await {
                None => return (learned, came),
                Some(Ok((job, Ok(instance)))) => learned.push((job, instance)),
                // The market does not know it any more.
                Some(Ok((job, Err(MarketError::Refused { status: 404 | 410, .. })))) => {
                    learned.push((job, None));
                }
                Some(Ok((_, Err(error)))) => came = Err(Halt::from(error)),
                Some(Err(_ended)) => {}
            }
        }
    }

    async fn settle(&mut self, learned: &[(Job, Option<Instance>)]) -> Result<(), Halt> {
        // The market may have called, and even paid, since the jobs were listed that it was asked for.
        self.note_won().await?;
        let now_ms = unix_ms();
        let (mut states, mut ended) = (Vec::new(), Vec::new());
        for (asked, instance) in learned {
            let Some(job) = self.jobs.get(&asked.id) else { continue };
            match fate(&job, instance.as_ref(), now_ms) {
                Some(Fate::Goes(state)) if state != job.state => states.push((job.id, state)),
                // What it costs is known when its last call has ended.
                Some(Fate::Ends(..)) if self.money.is_drawn_on(&job.id) => {}
                Some(Fate::Ends(outcome, earned)) => ended.push((job, outcome, earned)),
                Some(Fate::Goes(_)) | None => {}
            }
        }
        self.set_states(states).await?;
        self.end(ended).await
    }

    pub(super) async fn set_states(&self, states: Vec<(String, State)>) -> Result<(), Halt> {
        if states.is_empty() {
            return Ok(());
        }
        for (id, state) in &states {
            self.jobs.set_state(id, *state);
        }
        let store = move |store: &mut sluice_ledger::market::MarketStore| {
            store.set_states(states.iter().map(|(id, state)| (id.as_str(), *state)))
        };
        Ok(self.stored(store).await?)
    }

    /// Jobs have ended: their keys do not work any more, and they are in the report.
    pub(super) async fn end(&mut self, ended: Vec<(Job, Outcome, NanoUsd)>) -> Result<(), Halt> {
        if ended.is_empty() {
            return Ok(());
        }
        // Nobody calls for them from here on.
        self.jobs.end(ended.iter().map(|(job, ..)| job.id.as_str()));
        let again: Vec<Job> = ended.iter().map(|(job, ..)| job.clone()).collect();
        let money = Arc::clone(&self.money);
        let stored = self.stored(move |store| {
            // What calls have cost is in the store when this has been waited for.
            money.spending.flush().map_err(|_| sluice_ledger::store::StoreError::Locked)?;
            let mut endings = Vec::with_capacity(ended.len());
            let mut jobs = Vec::with_capacity(ended.len());
            for (job, outcome, earned) in ended {
                let (cost, ended_ms) = (store.spent(&job.id)?, unix_ms());
                // Who was paid has served; who served nothing has not.
                let outcome = match outcome {
                    Outcome::Unpaid if cost == NanoUsd::ZERO => Outcome::Failed,
                    Outcome::Refused | Outcome::Lost | Outcome::Paid | Outcome::Unpaid | Outcome::Failed => {
                        outcome
                    }
                };
                endings.push(Ending { id: job.id.clone(), outcome, cost, earned, ended_ms });
                jobs.push(Job {
                    state: State::Ended(outcome),
                    cost,
                    earned,
                    ended_ms: Some(ended_ms),
                    ..job
                });
            }
            store.end(&endings)?;
            Ok(jobs)
        });
        let jobs = stored.await.inspect_err(|_| self.jobs.begin(again))?;
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
fn fate(job: &Job, instance: Option<&Instance>, now_ms: u64) -> Option<Fate> {
    let ours = job.state == State::Won;
    let is_over = now_ms >= job.due_ms.saturating_add(LATE_MS);
    let unpaid = if ours { Outcome::Unpaid } else { Outcome::Lost };
    let Some(instance) = instance else {
        return Some(Fate::Ends(unpaid, NanoUsd::ZERO));
    };
    match instance.status {
        InstanceStatus::Failed => Some(Fate::Ends(unpaid, NanoUsd::ZERO)),
        InstanceStatus::Finalized if !ours => Some(Fate::Ends(Outcome::Lost, NanoUsd::ZERO)),
        InstanceStatus::Finalized => {
            let whole = instance.gen_reward.unwrap_or(NanoUsd::ZERO);
            let earned = instance.percentage_reward.map_or(whole, |share| share.part_of(whole));
            // Nobody pays more than that; what is said beyond is a mistake.
            let earned = earned.min(NanoUsd::ATTEMPT_MAX);
            let outcome = if earned > NanoUsd::ZERO { Outcome::Paid } else { Outcome::Unpaid };
            Some(Fate::Ends(outcome, earned))
        }
        InstanceStatus::Open | InstanceStatus::Resolved | InstanceStatus::Other(_) if is_over => {
            Some(Fate::Ends(unpaid, NanoUsd::ZERO))
        }
        InstanceStatus::Open | InstanceStatus::Resolved | InstanceStatus::Other(_) => {
            (job.state == State::Sending).then_some(Fate::Goes(State::Sending))
        }
    }
}

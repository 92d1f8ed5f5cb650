//! One round of bids: what is open, who decides about it, what of that may be bid, and what the market
//! says.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::bidding::{Decision, Decisions, Reason as Passed};
use sluice_core::market::guard::{Bid, Exposure, Limits};
use sluice_core::market::pause::Reason;
use sluice_core::market::shares;
use sluice_core::money::NanoUsd;
use sluice_core::rate::{Admission, Bucket, Limit};
use sluice_ledger::market::{Job, MarketStore, State};
use sluice_runtime::{Decided, Strategy, Versioned};
use tokio::task::JoinSet;

use super::appraisal::{Appraised, Unfit, appraise};
use super::bidder::{Bidder, Bids, Halt, Link, limits, model};
use super::client::Offer;
use super::contract::{Instance, InstanceId};
use super::endpoint;
use super::error::MarketError;
use super::tracking::Ended;
use crate::config::{self, Secret};
use crate::money::unix_ms;
use crate::routes::Strategist;
use crate::snapshot::Snapshot;

/// Proposals under way at once.
const PROPOSALS_AT_ONCE: usize = 8;

/// Who asks for its own endpoint again.
const PROBE_EVERY: Duration = Duration::from_secs(300);

/// Jobs whose bids a dry run remembers to have told.
const REHEARSED_MAX: usize = 10_000;

/// A job that takes no bids in less than this is not bid on: it would come too late.
const CLOSES_MIN_MS: u64 = 50;

/// A bid that was allowed, not yet written down.
struct Wanted {
    id: InstanceId,
    job: Job,
}

/// One round, as far as it has come.
struct Round<'r> {
    market: &'r config::Market,
    /// The model that jobs get.
    asked: &'r str,
    /// What all have promised by now.
    all: Exposure,
    wanted: Vec<Wanted>,
}

impl Bidder {
    /// Bids on what is open.
    pub(super) async fn bid(
        &mut self,
        link: &Link,
        snapshot: &Arc<Snapshot>,
        market: &config::Market,
    ) -> Result<Bids, Halt> {
        let strategists = snapshot.routes.strategists();
        // Who names none has an account at the market, and is told that this is all.
        let missing = |what| Halt::new(Reason::Endpoint, format!("[market] {what} is needed to bid"));
        let (model, asked) = model(snapshot, market).ok_or_else(|| missing("model"))?;
        let endpoint = market.endpoint.as_ref().ok_or_else(|| missing("endpoint"))?;
        if strategists.is_empty() {
            return Ok(Bids::None);
        }
        self.probe(endpoint, market).await?;
        let listed = link.client.open_instances(&link.who).await?;
        self.standing.scanned(unix_ms(), listed.items.len(), listed.bad);
        let (now, now_ms) = (Instant::now(), unix_ms());
        let mut fresh: Vec<Instance> =
            listed.items.into_iter().filter(|instance| self.is_fresh(instance, now, now_ms)).collect();
        if market.dry_run {
            fresh.retain(|instance| !self.rehearsed.contains(instance.id.as_str()));
        } else {
            self.rehearsed.clear();
        }
        // What can never be bid on takes no place among those that are shown.
        fresh.retain(|instance| instance.credit >= market.floor);
        fresh.sort_by_key(|instance| instance.closes_at_ms);
        // Long texts are read more than once: not where requests are served.
        let shown = tokio::task::block_in_place(|| {
            self.appraised(
                fresh,
                strategists,
                |instance| appraise(instance, model, asked, market, now_ms),
                market,
            )
        });
        let all = self.records.exposure(&self.jobs);
        let mut round = Round { market, asked, all, wanted: Vec::new() };
        let mut asked_nobody = true;
        for (strategist, jobs) in strategists.iter().zip(shown) {
            if jobs.is_empty() {
                asked_nobody = false;
                continue;
            }
            match self.decide(strategist, &jobs, market).await {
                Ok(decided) => {
                    asked_nobody = false;
                    self.allow(&mut round, strategist, jobs, &decided);
                }
                Err(error) => {
                    self.standing.fails(&strategist.name);
                    tracing::debug!(strategy = strategist.name, %error, "the strategy did not decide");
                }
            }
        }
        if asked_nobody {
            return Err(Halt::new(Reason::Strategies, "no strategy has decided; see their faults"));
        }
        if market.dry_run {
            self.rehearse(&round.wanted);
            return Ok(Bids::None);
        }
        self.propose(link, round.wanted, endpoint).await
    }

    /// Whether the market would find us.
    async fn probe(&mut self, at: &url::Url, market: &config::Market) -> Result<(), Halt> {
        let good = |(url, when): &(url::Url, Instant)| url == at && when.elapsed() < PROBE_EVERY;
        if market.dry_run || self.probed.as_ref().is_some_and(good) {
            return Ok(());
        }
        self.probed = None;
        let ours = self.jobs.passes().probe();
        let found = endpoint::probe(at, self.tls.clone(), &ours).await;
        found.map_err(|why| Halt::new(Reason::Endpoint, format!("[market] endpoint {at}: {why}")))?;
        self.probed = Some((at.clone(), Instant::now()));
        Ok(())
    }

    fn is_fresh(&self, instance: &Instance, now: Instant, now_ms: u64) -> bool {
        let id = instance.id.as_str();
        let is_late =
            instance.closes_at_ms.is_some_and(|at_ms| at_ms <= now_ms.saturating_add(CLOSES_MIN_MS));
        !is_late && !self.jobs.has(id) && !self.refusals.bars(id, now)
    }

    /// May take a second of CPU time, so off the workers.
    async fn decide(
        &self,
        strategist: &Arc<Strategist>,
        jobs: &[Appraised],
        market: &config::Market,
    ) -> Result<Decided<Strategy, Decisions>, String> {
        let limits = limits_of(strategist, market);
        let book = self.records.book(&strategist.name, &self.jobs, &limits, self.balance);
        let jobs: Vec<_> = jobs.iter().map(|appraised| appraised.job.clone()).collect();
        let strategist = Arc::clone(strategist);
        let decided = tokio::task::spawn_blocking(move || strategist.strategy.bids(&book, &jobs));
        match decided.await {
            Ok(decided) => decided.map_err(|error| error.to_string()),
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// Jobs with what they would cost, for each strategist its own.
    fn appraised(
        &self,
        fresh: Vec<Instance>,
        strategists: &[Arc<Strategist>],
        appraise: impl Fn(Instance) -> Result<Appraised, Unfit>,
        market: &config::Market,
    ) -> Vec<Vec<Appraised>> {
        let weights: Vec<u32> = strategists.iter().map(|strategist| strategist.share).collect();
        let mut shown: Vec<Vec<Appraised>> = strategists.iter().map(|_| Vec::new()).collect();
        for instance in fresh {
            let Some(place) = shares::of(instance.id.as_str(), &weights) else { continue };
            let name = &strategists[place].name;
            if instance.is_agent && market.agents == config::Agents::Skip {
                self.standing.passed_over(name, "agent");
                continue;
            }
            match appraise(instance) {
                Ok(appraised) => shown[place].push(appraised),
                Err(unfit) => self.standing.passed_over(name, unfit.name()),
            }
        }
        shown
    }

    /// What of a strategy's bids is inside the operator's bounds.
    fn allow(
        &mut self,
        round: &mut Round<'_>,
        strategist: &Strategist,
        jobs: Vec<Appraised>,
        decided: &Decided<Strategy, Decisions>,
    ) {
        let market = round.market;
        let mut own = self.records.exposure_of(&strategist.name, &self.jobs);
        let manifest = decided.by.plugin().manifest();
        let decided_by = format!("{}@{}", manifest.id, manifest.version);
        let (of_all, of_own) = (limits(market), limits_of(strategist, market));
        for (appraised, decision) in jobs.into_iter().zip(&decided.decision.by_job) {
            let amount = match decision {
                Decision::Bid(amount) => *amount,
                Decision::Skip(passed) => {
                    let why = match passed {
                        Passed::Strategy(_) => "strategy",
                        Passed::Host(reason) => reason.name(),
                    };
                    self.standing.passed_over(&strategist.name, why);
                    continue;
                }
            };
            let bid = Bid { amount, credit: appraised.job.credit, worst: appraised.worst };
            let allowed = of_all.check(&round.all, &bid).and_then(|()| of_own.check(&own, &bid));
            if let Err(barred) = allowed {
                self.standing.passed_over(&strategist.name, barred.name());
                continue;
            }
            if !self.takes_a_bid(market) {
                self.standing.passed_over(&strategist.name, "rate");
                continue;
            }
            round.all.begins(bid.worst);
            own.begins(bid.worst);
            let job = Job {
                id: appraised.id.to_string(),
                strategy: strategist.name.clone(),
                decided_by: decided_by.clone(),
                model: round.asked.to_owned(),
                state: State::Sending,
                credit: bid.credit,
                bid: amount,
                expected: appraised.expected,
                worst: bid.worst,
                cost: NanoUsd::ZERO,
                earned: NanoUsd::ZERO,
                bid_ms: unix_ms(),
                closes_ms: appraised.closes_at_ms,
                due_ms: appraised.due_at_ms,
                ended_ms: None,
            };
            round.wanted.push(Wanted { id: appraised.id, job });
        }
    }

    /// One more this minute.
    fn takes_a_bid(&mut self, market: &config::Market) -> bool {
        let now = Instant::now();
        let limit =
            Limit { per_minute: NonZeroU64::new(market.bids_per_minute.into()).unwrap_or(NonZeroU64::MIN) };
        let bucket = self.bids.get_or_insert_with(|| Bucket::new(limit, now));
        bucket.set_limit(limit, now);
        bucket.take(1, now) == Admission::Now
    }

    /// What would be bid.
    fn rehearse(&mut self, wanted: &[Wanted]) {
        if self.rehearsed.len() > REHEARSED_MAX {
            self.rehearsed.clear();
        }
        for Wanted { job, .. } in wanted {
            let Job { id, strategy, decided_by, bid, credit, expected, worst, .. } = job;
            tracing::info!(job = id, strategy, decided_by, %bid, %credit, %expected, %worst, "dry run: would bid");
            self.standing.proposed(strategy, "dry_run");
            self.rehearsed.insert(id.clone());
        }
    }

    /// Writes the jobs down, and then sends the proposals.
    async fn propose(&mut self, link: &Link, wanted: Vec<Wanted>, endpoint: &url::Url) -> Result<Bids, Halt> {
        if wanted.is_empty() {
            return Ok(Bids::None);
        }
        let mut ids: HashMap<String, InstanceId> =
            wanted.iter().map(|wanted| (wanted.job.id.clone(), wanted.id.clone())).collect();
        let jobs = wanted.into_iter().map(|wanted| wanted.job).collect();
        let new = self.stored(move |store: &mut MarketStore| store.begin(jobs)).await?;
        // Their keys work before the market has them.
        self.jobs.begin(new.clone());
        let mut waiting = new.into_iter().filter_map(|job| Some((ids.remove(&job.id)?, job)));
        let (mut sent, mut states, mut refused) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut came = Ok(());
        loop {
            while sent.len() < PROPOSALS_AT_ONCE
                && came.is_ok()
                && let Some((id, job)) = waiting.next()
            {
                let (link, endpoint) = (link.clone(), endpoint.clone());
                let Some(key) = Secret::new(&self.jobs.passes().make(&job.id)) else { continue };
                sent.spawn(async move {
                    let offer = Offer { endpoint: &endpoint, max_bid: job.bid, endpoint_api_key: &key };
                    let said = link.client.create_proposal(&link.who, &id, &offer).await;
                    (job, said)
                });
            }
            let Some(done) = sent.join_next().await else { break };
            let Ok((job, said)) = done else { continue };
            match self.said(&job, said) {
                Said::Taken => states.push((job.id, State::Open)),
                Said::Refused => refused.push((job, Ended::Refused)),
                Said::Halts(halt, stands) => {
                    came = Err(halt);
                    if !stands {
                        refused.push((job, Ended::Refused));
                    }
                }
            }
        }
        // What was not sent is as if it had not been thought of.
        refused.extend(waiting.map(|(_, job)| (job, Ended::Refused)));
        let bids = if states.is_empty() { Bids::None } else { Bids::Taken };
        self.set_states(states).await?;
        self.end(refused).await?;
        came.map(|()| bids)
    }

    /// What the market's answer to a proposal means.
    fn said(&mut self, job: &Job, said: Result<(), MarketError>) -> Said {
        let Err(error) = said else {
            self.standing.proposed(&job.strategy, "taken");
            tracing::debug!(job = job.id, strategy = job.strategy, bid = %job.bid, "proposed");
            return Said::Taken;
        };
        self.standing.proposed(&job.strategy, error.code());
        tracing::debug!(job = job.id, strategy = job.strategy, %error, "not proposed");
        match error {
            // It has one of ours already, and the key in it is the same.
            MarketError::Refused { status: 409, .. } => Said::Taken,
            MarketError::Refused { .. } => {
                self.refusals.refused(&job.id, Instant::now());
                Said::Refused
            }
            // It may be this job alone that is not for us.
            MarketError::Balance { .. } => {
                self.refusals.refused(&job.id, Instant::now());
                Said::Halts(error.into(), false)
            }
            MarketError::Unauthorized { .. } | MarketError::Throttled { .. } => {
                Said::Halts(error.into(), false)
            }
            // It may stand.
            MarketError::Unreachable { .. }
            | MarketError::Timeout
            | MarketError::Server { .. }
            | MarketError::Garbage { .. } => {
                self.resynced = None;
                Said::Halts(error.into(), true)
            }
        }
    }
}

enum Said {
    Taken,
    Refused,
    /// Nothing more is proposed; whether this one may stand.
    Halts(Halt, bool),
}

/// What one strategy is allowed, besides what all are.
fn limits_of(strategist: &Strategist, market: &config::Market) -> Limits {
    let loss_per_day = strategist.loss_per_day.unwrap_or(market.loss_per_day);
    Limits { loss_per_day, ..limits(market) }
}

//! What each strategy has behind it: what it may learn from, and what its day has brought.

use std::collections::{HashMap, VecDeque};

use sluice_core::bidding::{Book, ClosedBid, Outcome as Ended, RECENT_MAX};
use sluice_core::market::guard::{Exposure, Limits};
use sluice_core::money::NanoUsd;
use sluice_ledger::market::report::{By, Which};
use sluice_ledger::market::{Job, MarketStore, Outcome, State};
use sluice_ledger::rows::DAY_MS;
use sluice_ledger::store::StoreError;

use super::jobs::Jobs;

/// Of all strategies that have bid since the start.
pub(crate) struct Records {
    /// Days since the Unix epoch.
    day: u64,
    by_strategy: HashMap<String, Record>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    spent: NanoUsd,
    earned: NanoUsd,
    wins: u32,
    losses: u32,
    recent: VecDeque<ClosedBid>,
    spent_today: NanoUsd,
    earned_today: NanoUsd,
}

impl Records {
    /// As the ledger has them.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) fn read(store: &mut MarketStore, now_ms: u64) -> Result<Records, StoreError> {
        let day = now_ms / DAY_MS;
        let all = store.store().market_report(By::Strategy, Which::default())?;
        let mut by_strategy = HashMap::new();
        for line in all {
            let mut record = Record { spent: line.cost, earned: line.earned, ..Record::default() };
            let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            record.wins = count(line.paid + line.unpaid + line.failed);
            record.losses = count(line.lost);
            record.recent.extend(store.recent(&line.strategy, RECENT_MAX as u32)?.iter().filter_map(closed));
            by_strategy.insert(line.strategy, record);
        }
        for (strategy, spent, earned) in store.day(day)? {
            let record: &mut Record = by_strategy.entry(strategy).or_default();
            (record.spent_today, record.earned_today) = (spent, earned);
        }
        Ok(Records { day, by_strategy })
    }

    /// A new day has begun, if that is so.
    pub(crate) fn at(&mut self, now_ms: u64) {
        let day = now_ms / DAY_MS;
        // A clock that goes back opens no day again.
        if self.day < day {
            self.day = day;
            for record in self.by_strategy.values_mut() {
                (record.spent_today, record.earned_today) = (NanoUsd::ZERO, NanoUsd::ZERO);
            }
        }
    }

    /// A job has ended.
    pub(crate) fn ended(&mut self, job: &Job) {
        self.at(job.ended_ms.unwrap_or_default());
        let record = self.by_strategy.entry(job.strategy.clone()).or_default();
        record.spent = record.spent.saturating_add(job.cost);
        record.earned = record.earned.saturating_add(job.earned);
        record.spent_today = record.spent_today.saturating_add(job.cost);
        record.earned_today = record.earned_today.saturating_add(job.earned);
        let Some(closed) = closed(job) else { return };
        match closed.outcome {
            Ended::Lost => record.losses = record.losses.saturating_add(1),
            Ended::Paid | Ended::Unpaid | Ended::Failed => record.wins = record.wins.saturating_add(1),
        }
        record.recent.push_back(closed);
        if record.recent.len() > RECENT_MAX {
            record.recent.pop_front();
        }
    }

    /// What all have under way, and what the day has brought.
    pub(crate) fn exposure(&self, jobs: &Jobs) -> Exposure {
        let records = self.by_strategy.values();
        let today = records.fold((NanoUsd::ZERO, NanoUsd::ZERO), |(spent, earned), record| {
            (spent.saturating_add(record.spent_today), earned.saturating_add(record.earned_today))
        });
        Exposure { spent: today.0, earned: today.1, ..jobs.exposure(|_| true) }
    }

    /// The same of one strategy.
    pub(crate) fn exposure_of(&self, strategy: &str, jobs: &Jobs) -> Exposure {
        let record = self.by_strategy.get(strategy);
        let today = record.map_or_else(Default::default, |record| (record.spent_today, record.earned_today));
        let under_way = jobs.exposure(|job| job.strategy == strategy);
        Exposure { spent: today.0, earned: today.1, ..under_way }
    }

    /// What a strategy is shown of itself.
    pub(crate) fn book(
        &self,
        strategy: &str,
        jobs: &Jobs,
        limits: &Limits,
        balance: Option<NanoUsd>,
    ) -> Book {
        let record = self.by_strategy.get(strategy).cloned().unwrap_or_default();
        let sum = |won: bool| {
            let fits = |job: &Job| job.strategy == strategy && (job.state == State::Won) == won;
            jobs.list(fits).iter().fold(NanoUsd::ZERO, |sum, job| sum.saturating_add(job.bid))
        };
        Book {
            open: sum(false),
            won: sum(true),
            spent: record.spent,
            earned: record.earned,
            balance,
            day_loss_left: Some(limits.loss_left(&self.exposure_of(strategy, jobs))),
            wins: record.wins,
            losses: record.losses,
            recent: record.recent.into(),
        }
    }
}

/// What there is to learn from a job; nothing, where the market has not taken the proposal.
fn closed(job: &Job) -> Option<ClosedBid> {
    let outcome = match job.state {
        State::Sending | State::Open | State::Won | State::Ended(Outcome::Refused) => return None,
        State::Ended(Outcome::Lost) => Ended::Lost,
        State::Ended(Outcome::Paid) => Ended::Paid,
        State::Ended(Outcome::Unpaid) => Ended::Unpaid,
        State::Ended(Outcome::Failed) => Ended::Failed,
    };
    let Job { credit, bid, expected, cost, earned, .. } = *job;
    Some(ClosedBid { credit, bid, expected, actual: cost, earned, outcome })
}

//! What operators are told of the loop: whether it bids, why not, and what it has counted since the
//! start.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_core::market::pause::Reason;

/// Of the loop. Cheap to look at.
#[derive(Default)]
pub(crate) struct Standing(Mutex<Told>);

/// All that is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) halted: Option<Halted>,
    /// The market's list of open jobs was read so often, and last at this time, in milliseconds since
    /// the Unix epoch.
    pub(crate) scans: u64,
    pub(crate) scanned_ms: Option<u64>,
    /// Jobs on it then, and those of them that could not be read.
    pub(crate) jobs_seen: u64,
    pub(crate) jobs_unreadable: u64,
    pub(crate) by_strategy: BTreeMap<String, Tally>,
}

/// Why nothing is bid.
#[derive(Clone, Debug)]
pub(crate) struct Halted {
    pub(crate) reason: Reason,
    pub(crate) why: String,
    pub(crate) since_ms: u64,
}

/// What became of the jobs of one strategy; words of closed sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Proposals by what the market said of them.
    pub(crate) proposals: BTreeMap<&'static str, u64>,
    /// Decisions without a proposal, by why.
    pub(crate) passed_over: BTreeMap<&'static str, u64>,
    /// Times that the strategy could not be asked, or answered nonsense.
    pub(crate) faults: u64,
}

impl Standing {
    pub(crate) fn told(&self) -> Told {
        self.lock().clone()
    }

    pub(crate) fn scanned(&self, now_ms: u64, seen: usize, unreadable: usize) {
        let mut told = self.lock();
        told.scans += 1;
        told.scanned_ms = Some(now_ms);
        (told.jobs_seen, told.jobs_unreadable) = (seen as u64, unreadable as u64);
    }

    pub(crate) fn halts(&self, reason: Reason, why: String, now_ms: u64) {
        let mut told = self.lock();
        let before = told.halted.take().filter(|halted| halted.reason == reason);
        let since_ms = before.map_or(now_ms, |halted| halted.since_ms);
        told.halted = Some(Halted { reason, why, since_ms });
    }

    pub(crate) fn goes_on(&self) {
        self.lock().halted = None;
    }

    pub(crate) fn proposed(&self, strategy: &str, said: &'static str) {
        self.counts(strategy, |tally| *tally.proposals.entry(said).or_default() += 1);
    }

    pub(crate) fn passed_over(&self, strategy: &str, why: &'static str) {
        self.counts(strategy, |tally| *tally.passed_over.entry(why).or_default() += 1);
    }

    pub(crate) fn fails(&self, strategy: &str) {
        self.counts(strategy, |tally| tally.faults += 1);
    }

    /// Names of strategies are the operator's: they are few.
    fn counts(&self, strategy: &str, count: impl FnOnce(&mut Tally)) {
        let mut told = self.lock();
        match told.by_strategy.get_mut(strategy) {
            Some(tally) => count(tally),
            None => count(told.by_strategy.entry(strategy.to_owned()).or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

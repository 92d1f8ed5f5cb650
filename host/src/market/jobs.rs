//! Jobs under way, in memory: whose keys work, and what is at risk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_core::market::guard::Exposure;
use sluice_core::money::NanoUsd;
use sluice_ledger::keys::ring::Stranger;
use sluice_ledger::market::{Job, State};
use sluice_ledger::seal::JobSecret;

use super::passes::{JobPass, Passes};

/// Jobs of the market that have not ended. Shared by those who bid and those who serve.
pub(crate) struct Jobs {
    passes: Passes,
    under_way: Mutex<HashMap<String, UnderWay>>,
}

/// What is known of a job's fate, but for what the market says of it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) ours: bool,
    pub(crate) denied: bool,
}

/// A job that was bid on.
pub(crate) struct UnderWay {
    pub(crate) job: Job,
    pass: Arc<JobPass>,
    /// The market has called: it is ours.
    called: bool,
    /// By the market's list of our proposals it is somebody else's.
    denied: bool,
}

impl Jobs {
    /// `secret`: of this gateway's own. `under_way`: as the ledger has them.
    pub(crate) fn new(secret: JobSecret, under_way: Vec<Job>) -> Jobs {
        let jobs = Jobs { passes: Passes::new(secret), under_way: Mutex::default() };
        jobs.begin(under_way);
        jobs
    }

    pub(crate) fn passes(&self) -> &Passes {
        &self.passes
    }

    /// From now on their keys work.
    pub(crate) fn begin(&self, jobs: Vec<Job>) {
        let mut under_way = self.lock();
        for job in jobs {
            let pass = Arc::new(JobPass::new(&job.id, &job.model, job.worst));
            let found = UnderWay { job, pass, called: false, denied: false };
            under_way.insert(found.job.id.clone(), found);
        }
    }

    /// What could not be written down as ended has not ended.
    pub(crate) fn put_back(&self, jobs: Vec<UnderWay>) {
        let mut under_way = self.lock();
        under_way.extend(jobs.into_iter().map(|found| (found.job.id.clone(), found)));
    }

    /// Whose key this is. A job whose key is used is ours.
    ///
    /// # Errors
    ///
    /// [`Stranger`]; of keys that we have not made, nothing is told.
    pub(crate) fn enter(&self, key: &str, now_ms: u64) -> Result<Arc<JobPass>, Stranger> {
        let job = self.passes.job(key).ok_or(Stranger::Unknown)?;
        let mut under_way = self.lock();
        let found = under_way.get_mut(job).ok_or(Stranger::Revoked)?;
        if found.job.due_ms <= now_ms {
            return Err(Stranger::Expired);
        }
        found.called = true;
        Ok(Arc::clone(&found.pass))
    }

    /// It stands so now, as the market says.
    pub(crate) fn set_state(&self, id: &str, state: State) {
        if let Some(found) = self.lock().get_mut(id) {
            found.job.state = state;
        }
    }

    /// Jobs whose keys were used and that are not written down as won.
    pub(crate) fn newly_won(&self) -> Vec<String> {
        let under_way = self.lock();
        let won = under_way.values().filter(|found| found.called && found.job.state != State::Won);
        won.map(|found| found.job.id.clone()).collect()
    }

    /// By the market's list of our proposals somebody else has it.
    pub(crate) fn deny(&self, id: &str) {
        if let Some(found) = self.lock().get_mut(id) {
            found.denied = true;
        }
    }

    /// What is known of a job's fate here.
    pub(crate) fn known(&self, id: &str) -> Option<Known> {
        let under_way = self.lock();
        let found = under_way.get(id)?;
        let ours = found.called || found.job.state == State::Won;
        Some(Known { ours, denied: found.denied })
    }

    /// The key of this job does not work any more. None, where a call of it is under way, from its head
    /// to the end of its answer: what it costs is not known then.
    pub(crate) fn end(&self, id: &str) -> Option<UnderWay> {
        let mut under_way = self.lock();
        // Whoever is let in has a share of the pass, and is let in under this lock.
        under_way.get(id).filter(|found| Arc::strong_count(&found.pass) == 1)?;
        under_way.remove(id)
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// Those that fit, as they stand.
    pub(crate) fn list(&self, fits: impl Fn(&Job) -> bool) -> Vec<Job> {
        let under_way = self.lock();
        under_way.values().filter(|found| fits(&found.job)).map(|found| found.job.clone()).collect()
    }

    /// What is at risk in those that fit, and how many there are; nothing of what has ended.
    pub(crate) fn exposure(&self, fits: impl Fn(&Job) -> bool) -> Exposure {
        let mut exposure = Exposure::default();
        for found in self.lock().values().filter(|found| fits(&found.job)) {
            exposure.begins(found.job.worst);
        }
        exposure
    }

    /// How many are open, and how many are ours; with what was bid on the latter.
    pub(crate) fn counts(&self) -> (u64, u64, NanoUsd) {
        let (mut open, mut won, mut bid) = (0, 0, NanoUsd::ZERO);
        for found in self.lock().values() {
            if found.job.state == State::Won {
                won += 1;
                bid = bid.saturating_add(found.job.bid);
            } else {
                open += 1;
            }
        }
        (open, won, bid)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::market) fn job(id: &str, state: State) -> Job {
        let usd = NanoUsd::from_nanos;
        Job {
            id: id.into(),
            strategy: "s".into(),
            decided_by: "p@1.0.0".into(),
            model: "m".into(),
            state,
            credit: usd(100),
            bid: usd(20),
            expected: usd(10),
            worst: usd(40),
            cost: usd(0),
            earned: usd(0),
            bid_ms: 1,
            closes_ms: 2,
            due_ms: 1000,
            ended_ms: None,
        }
    }

    #[test]
    fn a_key_works_from_the_bid_to_the_end_of_its_job_over_a_restart() {
        let secret = || JobSecret::new([7; 32]);
        let jobs = Jobs::new(secret(), Vec::new());
        let key = jobs.passes().make("a");
        assert_eq!(jobs.enter(&key, 5).err(), Some(Stranger::Revoked), "nothing was bid");
        jobs.begin(vec![job("a", State::Sending), job("b", State::Open)]);
        let pass = jobs.enter(&key, 5).unwrap();
        assert_eq!((&*pass.key, &*pass.model, pass.budgets()[0].cap.nanos()), ("job-a", "m", 40));
        assert_eq!(jobs.enter(&key, 1000).err(), Some(Stranger::Expired));
        assert_eq!(jobs.enter("sk-sluice-job-a-x", 5).err(), Some(Stranger::Unknown));
        let again = Jobs::new(secret(), jobs.list(|_| true));
        assert!(again.enter(&key, 5).is_ok());
        assert!(again.end("a").is_some() && again.end("a").is_none());
        assert_eq!(again.enter(&key, 5).err(), Some(Stranger::Revoked));
    }

    #[test]
    fn a_job_that_is_called_is_ours_and_does_not_end_while_it_is_called() {
        let jobs = Jobs::new(JobSecret::new([7; 32]), vec![job("a", State::Open), job("b", State::Open)]);
        assert!(jobs.newly_won().is_empty());
        let pass = jobs.enter(&jobs.passes().make("a"), 5).unwrap();
        assert_eq!(jobs.newly_won(), ["a"], "until it is written down");
        assert!(jobs.end("a").is_none(), "a call is under way");
        drop(pass);
        let ended = jobs.end("a").unwrap();
        jobs.put_back(vec![ended]);
        assert_eq!(jobs.known("a"), Some(Known { ours: true, denied: false }), "it is still ours");
        jobs.set_state("a", State::Won);
        assert!(jobs.newly_won().is_empty());
        jobs.deny("b");
        assert_eq!(jobs.known("b"), Some(Known { ours: false, denied: true }));
        assert_eq!(jobs.counts(), (1, 1, NanoUsd::from_nanos(20)));
        assert_eq!(jobs.exposure(|job| job.state == State::Won).risk.nanos(), 40);
        assert_eq!(jobs.exposure(|_| true).jobs, 2);
    }
}

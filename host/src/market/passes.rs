//! Keys that a market gets, one for each job: made from the job's name, so that none is stored, and
//! each works over restarts until its job has ended.
//!
//! A key reads `sk-sluice-job-<job>-<mac>`, the mac being HMAC-SHA-256 (RFC 2104) of the job under a
//! secret of this gateway's own, in the URL alphabet of base64 (RFC 4648).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_core::money::NanoUsd;
use sluice_core::window::Window;
use sluice_ledger::keys::terms::KeyBudget;
use sluice_ledger::market;
use sluice_ledger::seal::JobSecret;
use subtle::ConstantTimeEq;

/// What keys for jobs begin with. Those of people go on with an id of twelve characters.
pub(crate) const PREFIX: &str = "sk-sluice-job-";

/// Characters of 32 bytes in base64, without padding.
const MAC_CHARS: usize = 43;

/// Of our own endpoint; no job is called so, for a job's name has no space.
const PROBE: &str = "our own endpoint";

/// Makes keys for jobs, and knows its own.
pub(crate) struct Passes(JobSecret);

/// What a job's key is good for.
#[derive(Debug)]
pub(crate) struct JobPass {
    /// Its calls are written down under this key, and its money has this scope.
    pub(crate) key: Arc<str>,
    /// All that it may ask for, whatever its calls name.
    pub(crate) model: Arc<str>,
    budgets: [KeyBudget; 1],
}

impl Passes {
    /// `secret`: of this gateway's own, and the same after a restart.
    pub(crate) fn new(secret: JobSecret) -> Passes {
        Passes(secret)
    }

    /// The key for a job.
    pub(crate) fn make(&self, job: &str) -> String {
        format!("{PREFIX}{job}-{}", self.mac(job))
    }

    /// The job that a key is for, if we have made it. Takes as long for every key of one length.
    pub(crate) fn job<'t>(&self, key: &'t str) -> Option<&'t str> {
        let rest = key.strip_prefix(PREFIX)?;
        let (job, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_CHARS)?)?;
        let job = job.strip_suffix('-')?;
        bool::from(self.mac(job).as_bytes().ct_eq(mac.as_bytes())).then_some(job)
    }

    /// By which our own endpoint is known to be ours.
    pub(crate) fn probe(&self) -> String {
        self.mac(PROBE)
    }

    fn mac(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.0.derive(text))
    }
}

impl JobPass {
    pub(crate) fn new(job: &str, model: &str, cap: NanoUsd) -> JobPass {
        let budgets = [KeyBudget { cap, window: Window::Total }];
        JobPass { key: market::scope(job).into(), model: model.into(), budgets }
    }

    pub(crate) fn budgets(&self) -> &[KeyBudget] {
        &self.budgets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_its_job_alone_and_of_this_gateway_alone() {
        let passes = |byte| Passes::new(JobSecret::new([byte; 32]));
        let (ours, others) = (passes(1), passes(2));
        for job in ["3f0c1c4e-7b1e-4f7e-9f38-0d3a5b6c7d8e", "a", "a_b-c"] {
            let key = ours.make(job);
            assert!(key.starts_with("sk-sluice-job-"));
            assert_eq!(ours.job(&key), Some(job));
            assert_eq!(passes(1).job(&key), Some(job), "after a restart too");
            assert_eq!(others.job(&key), None);
            for place in PREFIX.len()..key.len() {
                let mut other = key.clone().into_bytes();
                other[place] = if other[place] == b'A' { b'B' } else { b'A' };
                assert_eq!(ours.job(std::str::from_utf8(&other).unwrap()), None, "{place}");
            }
        }
        for key in ["", "sk-sluice-job-", "sk-sluice-job-a", "sk-sluice-job--", "sk-ä"] {
            assert_eq!(ours.job(key), None, "{key}");
        }
    }

    #[test]
    fn what_proves_the_endpoint_is_no_key() {
        let passes = Passes::new(JobSecret::new([1; 32]));
        assert_eq!(passes.job(&format!("{PREFIX}{PROBE}-{}", passes.probe())), Some(PROBE));
        assert!(PROBE.contains(' '), "and no job has a space in its name");
    }
}

//! Who asks: what limits, rows and refusals know of it.

use std::sync::Arc;

use http::HeaderMap;
use sluice_ledger::keys::ring::Key;
use sluice_ledger::keys::terms::KeyBudget;
use sluice_ledger::runs;

use crate::auth::Identity;
use crate::config::Limits;
use crate::rates::{Limited, Who};
use crate::refusal::Refusal;

/// Names the run that a call belongs to.
const RUN_HEADER: &str = "x-sluice-run";

/// A caller of completions.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    /// The key's id; empty where no key is shown.
    pub(crate) key: Arc<str>,
    /// The key's team; empty without one.
    pub(crate) team: Arc<str>,
    /// The run, as the caller names it.
    pub(crate) run: Option<Arc<str>>,
    known: Option<Arc<Key>>,
    team_limits: Option<Limits>,
}

impl Caller {
    /// # Errors
    ///
    /// [`Refusal::Header`] where the run's name cannot be used.
    pub(crate) fn read(headers: &HeaderMap, identity: Option<Identity>) -> Result<Caller, Refusal> {
        let run = match headers.get(RUN_HEADER) {
            None => None,
            Some(value) => {
                let run = value.to_str().ok().filter(|text| runs::is_name(text));
                let wanted = "wanted 1 to 128 visible ASCII characters";
                Some(run.ok_or(Refusal::Header { name: RUN_HEADER, wanted })?.into())
            }
        };
        let Some(Identity { key, team }) = identity else { return Ok(Caller { run, ..Caller::default() }) };
        Ok(Caller {
            key: key.shared_id(),
            team: Arc::clone(key.team()),
            run,
            known: Some(key),
            team_limits: team,
        })
    }

    /// What limits it.
    pub(crate) fn limited(&self) -> Limited {
        let mut limited = Limited::new();
        if let Some(key) = &self.known {
            let of_key = key.limits();
            let limits = Limits {
                requests_per_minute: of_key.requests_per_minute,
                tokens_per_minute: of_key.tokens_per_minute,
                concurrent: of_key.concurrent,
            };
            if !limits.is_none() {
                limited.push((Who::Key(Arc::clone(&self.key)), limits));
            }
        }
        if let Some(limits) = self.team_limits.filter(|limits| !limits.is_none()) {
            limited.push((Who::Team(Arc::clone(&self.team)), limits));
        }
        limited
    }

    /// It has shown a key, or named a run.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some() || self.run.is_some()
    }

    pub(crate) fn allows_model(&self, name: &str) -> bool {
        self.known.as_ref().is_none_or(|key| key.allows_model(name))
    }

    /// The key's own budgets.
    pub(crate) fn budgets(&self) -> &[KeyBudget] {
        self.known.as_ref().map_or(&[], |key| key.budgets())
    }
}

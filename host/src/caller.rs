//! Who asks: what limits, rows and refusals know of it.

use std::sync::Arc;

use http::HeaderMap;
use sluice_ledger::keys::ring::Key;
use sluice_ledger::keys::terms::KeyBudget;
use sluice_ledger::runs;

use crate::auth::Identity;
use crate::config::Limits;
use crate::market::JobPass;
use crate::rates::{AllWanted, Part, Wanted, Who};
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
    /// The market, that has given us a job.
    job: Option<Arc<JobPass>>,
}

/// The team that the calls of jobs are written down under.
const MARKET_TEAM: &str = "market";

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
            job: None,
        })
    }

    /// The market, which calls for a job.
    pub(crate) fn of_job(job: Arc<JobPass>) -> Caller {
        Caller { key: Arc::clone(&job.key), team: MARKET_TEAM.into(), job: Some(job), ..Caller::default() }
    }

    /// The model that it gets, whatever it asks for; none: what it asks for.
    pub(crate) fn given_model(&self) -> Option<&str> {
        self.job.as_ref().map(|job| &*job.model)
    }

    /// What limits it, for this part of what it takes.
    pub(crate) fn wanted(&self, part: Part) -> AllWanted {
        let mut wanted = AllWanted::new();
        let mut want = |who, limits: Limits| {
            let says_nothing = match part {
                Part::Tokens => limits.tokens_per_minute.is_none(),
                Part::Entry | Part::All => limits.is_none(),
            };
            if !says_nothing {
                wanted.push(Wanted { who, limits, part });
            }
        };
        if let Some(key) = &self.known {
            let of_key = key.limits();
            let limits = Limits {
                requests_per_minute: of_key.requests_per_minute,
                tokens_per_minute: of_key.tokens_per_minute,
                concurrent: of_key.concurrent,
            };
            want(Who::Key(Arc::clone(&self.key)), limits);
        }
        if let Some(limits) = self.team_limits {
            want(Who::Team(Arc::clone(&self.team)), limits);
        }
        wanted
    }

    /// It has shown a key, or named a run.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some() || self.run.is_some() || self.job.is_some()
    }

    pub(crate) fn allows_model(&self, name: &str) -> bool {
        let job = self.given_model().is_none_or(|model| model == name);
        job && self.known.as_ref().is_none_or(|key| key.allows_model(name))
    }

    /// The key's own budgets.
    pub(crate) fn budgets(&self) -> &[KeyBudget] {
        match (&self.known, &self.job) {
            (Some(key), _) => key.budgets(),
            (None, Some(job)) => job.budgets(),
            (None, None) => &[],
        }
    }
}

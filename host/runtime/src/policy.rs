//! A policy set up for one model: instances are kept warm between calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sluice_core::ranking::{Candidate, Ranking, RankingBreach, View};
use wasmtime::Store;

use crate::Setup;
use crate::bindings::policy::{RoutingPolicy, RoutingPolicyPre};
use crate::bindings::routing;
use crate::bounds::{CallClass, WARM_CALLS_MAX, WARM_IDLE_MAX, WARM_INSTANCES_MAX};
use crate::counters::Function;
use crate::engine::Runtime;
use crate::fault::{CallError, Fault};
use crate::plugin::{Code, Plugin};
use crate::rehearsal;
use crate::state::State;
use crate::watched::Versioned;

/// A plugin, the configuration of one model, and its warm instances.
pub struct Policy {
    runtime: Runtime,
    plugin: Arc<Plugin>,
    code: RoutingPolicyPre<State>,
    setup: Setup,
    /// A stack: the last one used is the warmest.
    idle: Mutex<Vec<Warm>>,
}

struct Warm {
    store: Store<State>,
    bindings: RoutingPolicy,
    calls: u32,
    used_at: Instant,
}

impl Policy {
    pub(crate) fn understudy(&self) -> Policy {
        Policy {
            runtime: self.runtime.clone(),
            plugin: Arc::new(self.plugin.understudy()),
            code: self.code.clone(),
            setup: self.setup.clone(),
            idle: Mutex::default(),
        }
    }

    /// Asks for an order of these candidates.
    ///
    /// # Errors
    ///
    /// The plugin's refusal, or its fault, counted; the caller goes by the native order then.
    pub fn rank(&self, view: &View, candidates: &[Candidate]) -> Result<Ranking, CallError> {
        let started = Instant::now();
        let ranked = self.ranked(view, candidates, started);
        self.plugin.counters().called(Function::Rank, started.elapsed());
        let ranking = ranked?;
        Ranking::check(&ranking.order, ranking.reason, candidates).map_err(|breach| {
            let fault = match breach {
                RankingBreach::Empty => Fault::RankedNobody,
                RankingBreach::Stranger(_) => Fault::RankedStranger,
                RankingBreach::Twice(_) => Fault::RankedTwice,
            };
            self.plugin.breach(fault, breach.to_string())
        })
    }

    fn ranked(
        &self,
        view: &View,
        candidates: &[Candidate],
        now: Instant,
    ) -> Result<routing::Ranking, CallError> {
        let mut warm = match self.take(now) {
            Some(warm) => warm,
            None => self.fresh(now)?,
        };
        State::begin(&mut warm.store, CallClass::Rank);
        let candidates: Vec<routing::Candidate> = candidates.iter().map(Into::into).collect();
        let guest = warm.bindings.sluice_plugin_policy();
        // A trap poisons the store: it is dropped here with its instance.
        let answered = guest.call_rank(&mut warm.store, view.into(), &candidates);
        let answered = answered.map_err(|error| self.plugin.trapped(&error, warm.store.data()))?;
        warm.calls += 1;
        warm.used_at = now;
        self.give_back(warm);
        answered.map_err(|error| self.plugin.refused(error.into()))
    }

    fn take(&self, now: Instant) -> Option<Warm> {
        let mut idle = self.idle();
        let warm = idle.pop()?;
        if now.saturating_duration_since(warm.used_at) < WARM_IDLE_MAX {
            return Some(warm);
        }
        // Those below have rested even longer.
        idle.clear();
        None
    }

    fn give_back(&self, warm: Warm) {
        let mut idle = self.idle();
        if warm.calls < WARM_CALLS_MAX && idle.len() < WARM_INSTANCES_MAX {
            idle.push(warm);
        }
    }

    fn fresh(&self, now: Instant) -> Result<Warm, CallError> {
        let mut store = State::store(&self.runtime, Arc::clone(&self.plugin.speaker));
        State::begin(&mut store, CallClass::Trial);
        let bindings = match self.code.instantiate(&mut store) {
            Ok(bindings) => bindings,
            Err(error) => return Err(self.plugin.trapped(&error, store.data())),
        };
        let configured = bindings.sluice_plugin_lifecycle().call_configure(&mut store, &(&self.setup).into());
        let configured = configured.map_err(|error| self.plugin.trapped(&error, store.data()))?;
        configured.map_err(|error| self.plugin.refused(error.into()))?;
        Ok(Warm { store, bindings, calls: 0, used_at: now })
    }

    /// A panic while the lock is held leaves the stack as good as it was.
    fn idle(&self) -> MutexGuard<'_, Vec<Warm>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Versioned for Policy {
    fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn set_up(runtime: &Runtime, plugin: &Arc<Plugin>, setup: Setup) -> Option<Result<Policy, CallError>> {
        let Code::Policy(code) = &plugin.code else { return None };
        let policy = Policy {
            runtime: runtime.clone(),
            plugin: Arc::clone(plugin),
            code: code.clone(),
            setup,
            idle: Mutex::default(),
        };
        Some(policy.fresh(Instant::now()).map(|warm| {
            policy.idle().push(warm);
            policy
        }))
    }

    fn rehearse(&self) -> Result<(), CallError> {
        rehearsal::policy(self)
    }
}

//! Who serves which model: one snapshot, made whole from the configuration and the plugins.

mod assemble;

pub(crate) use assemble::{Assembled, Flaw};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_core::bound::Bounds;
use sluice_core::breaker::Limits;
use sluice_core::money::NanoUsd;
use sluice_core::pattern::Pattern;
use sluice_core::price::Price;
use sluice_core::retry::Budget;
use sluice_core::stats::TargetStats;
use sluice_runtime::{Adapter, Policy, Runtime, Strategy, Watched};

use crate::config::{self, Secret, TargetModel, Tariffs, VendorTimers};
use crate::lane::{Lane, Lanes};
use crate::measures::{Measures, ModelMeasures};
use crate::prepared::PlanCache;
use crate::rates::{Part, Wanted, Who};
use crate::upstream::{Client, Clients};

/// Part of a snapshot.
#[derive(Default)]
pub(crate) struct Routes {
    /// In the order of the configuration.
    models: Vec<Arc<Model>>,
    upstreams: Vec<Arc<Upstream>>,
    strategists: Vec<Arc<Strategist>>,
}

/// Who decides about a share of a market's jobs.
pub(crate) struct Strategist {
    pub(crate) name: String,
    pub(crate) share: u32,
    pub(crate) loss_per_day: Option<NanoUsd>,
    pub(crate) strategy: Watched<Strategy>,
}

/// What clients ask for.
pub(crate) struct Model {
    pub(crate) id: u32,
    pub(crate) name: Pattern,
    pub(crate) policy: Watched<Policy>,
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) limits: config::Limits,
    pub(crate) retries: u32,
    pub(crate) deadline: Duration,
    pub(crate) measures: ModelMeasures,
    served: Arc<AtomicU64>,
}

/// One upstream's model.
pub(crate) struct Target {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) model: TargetModel,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    /// As configured; the rest is in the upstream's tariffs.
    price: Option<Price>,
    bounds: Bounds,
    pub(crate) stats: Arc<TargetStats>,
    /// Where the vendor's model is the same for all requests.
    lane: Option<Arc<Lane>>,
}

/// A vendor's address, secrets and adapter.
pub(crate) struct Upstream {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) adapter: Watched<Adapter>,
    pub(crate) base_url: Option<url::Url>,
    tariffs: Tariffs,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) plans: Arc<PlanCache>,
    pub(crate) timers: VendorTimers,
    pub(crate) client: Arc<Client>,
    pub(crate) lanes: Arc<Lanes>,
    /// What the lanes are to go by once these routes serve.
    pub(crate) breaker: Limits,
    pub(crate) limits: config::Limits,
    pub(crate) retries: Arc<Budget>,
}

/// What routes are made with, besides the configuration and the plugins.
pub(crate) struct Parts {
    pub(crate) runtime: Runtime,
    pub(crate) clients: Clients,
    pub(crate) measures: Measures,
}

impl Routes {
    /// The entry that serves a name: the longest match.
    pub(crate) fn model(&self, name: &str) -> Option<&Arc<Model>> {
        sluice_core::pattern::best(self.models.iter().map(|model| (&model.name, model)), name)
    }

    /// The one that an entry of this name had before, for what is to outlive it.
    fn model_named(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.name.as_str() == name)
    }

    fn upstream_named(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    pub(crate) fn strategists(&self) -> &[Arc<Strategist>] {
        &self.strategists
    }

    pub(crate) fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    pub(crate) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }
}

impl Model {
    /// How many requests came before this one.
    pub(crate) fn next_seq(&self) -> u64 {
        self.served.fetch_add(1, Ordering::Relaxed)
    }

    /// What of it is limited.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let who = || Who::Model(self.name.as_str().into());
        (!self.limits.is_none()).then(|| Wanted { who: who(), limits: self.limits, part: Part::All })
    }
}

impl Target {
    /// The lane of the model that the upstream is asked for.
    pub(crate) fn lane(&self, pattern: &Pattern, asked: &str) -> Arc<Lane> {
        match &self.lane {
            Some(lane) => Arc::clone(lane),
            None => self.upstream.lanes.lane(self.model_for(pattern, asked), pattern.as_str()),
        }
    }

    /// What the upstream's model costs, as far as anybody has said.
    pub(crate) fn price(&self, target_model: &str) -> Option<&Price> {
        self.upstream.tariffs.price(self.price.as_ref(), target_model)
    }

    /// What is known of the upstream's model besides its price.
    pub(crate) fn bounds(&self, target_model: &str) -> Bounds {
        self.upstream.tariffs.bounds(self.bounds, target_model)
    }

    /// The name by which the upstream knows the model; `asked` matched `pattern`.
    pub(crate) fn model_for<'a>(&'a self, pattern: &Pattern, asked: &'a str) -> &'a str {
        self.model.name(pattern, asked)
    }
}

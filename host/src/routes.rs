//! Who serves which model: one snapshot, made whole from the configuration and the plugins.

mod assemble;

pub(crate) use assemble::{Assembled, Flaw};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_core::money::Price;
use sluice_core::pattern::Pattern;
use sluice_core::stats::TargetStats;
use sluice_runtime::{Adapter, Policy, Watched};

use crate::config::{Secret, TargetModel};
use crate::prepared::PlanCache;

/// Part of a snapshot.
#[derive(Default)]
pub(crate) struct Routes {
    /// In the order of the configuration.
    models: Vec<Arc<Model>>,
    upstreams: Vec<Arc<Upstream>>,
}

/// What clients ask for.
pub(crate) struct Model {
    pub(crate) id: u32,
    pub(crate) name: Pattern,
    pub(crate) policy: Watched<Policy>,
    pub(crate) targets: Vec<Arc<Target>>,
    served: Arc<AtomicU64>,
}

/// One upstream's model.
pub(crate) struct Target {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) model: TargetModel,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) price: Option<Price>,
    pub(crate) stats: Arc<TargetStats>,
}

/// A vendor's address, secrets and adapter.
pub(crate) struct Upstream {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) adapter: Watched<Adapter>,
    pub(crate) base_url: Option<url::Url>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) plans: Arc<PlanCache>,
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
}

impl Target {
    /// The name by which the upstream knows the model; `asked` matched `pattern`.
    pub(crate) fn model_for<'a>(&'a self, pattern: &Pattern, asked: &'a str) -> &'a str {
        match &self.model {
            TargetModel::Named(name) => name,
            TargetModel::AsAsked => asked,
            TargetModel::Star => pattern.star(asked).unwrap_or(asked),
        }
    }
}

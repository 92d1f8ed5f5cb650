//! One loaded plugin: what it is, and what was counted of it.

use std::sync::Arc;

use wasmtime::component::ComponentExportIndex;

use crate::bindings::adapter::ProviderAdapterPre;
use crate::bindings::bid::BidStrategyPre;
use crate::bindings::policy::RoutingPolicyPre;
use crate::counters::Counters;
use crate::fault::{CallError, Fault, Refused};
use crate::linkers::{ADAPTER_GRANTS, Grant, POLICY_GRANTS, STRATEGY_GRANTS};
use crate::manifest::Manifest;
use crate::state::{Speaker, State};

/// A component that was admitted.
pub struct Plugin {
    pub(crate) code: Code,
    pub(crate) speaker: Arc<Speaker>,
    manifest: Manifest,
    digest: String,
    grants: &'static [Grant],
}

/// Which world a plugin implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Adapter,
    Policy,
    Strategy,
}

/// The component, linked and ready to be instantiated.
#[derive(Clone)]
pub(crate) enum Code {
    Adapter(AdapterCode),
    Policy(RoutingPolicyPre<State>),
    Strategy(BidStrategyPre<State>),
}

/// An adapter's code. The functions that each request calls are looked up by index: loading
/// and checking all nine of the world for each instance costs more than the calls.
#[derive(Clone)]
pub(crate) struct AdapterCode {
    pub(crate) world: ProviderAdapterPre<State>,
    pub(crate) configure: ComponentExportIndex,
    pub(crate) plan: ComponentExportIndex,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Adapter, Kind::Policy, Kind::Strategy];

    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Adapter => "provider-adapter",
            Kind::Policy => "routing-policy",
            Kind::Strategy => "bid-strategy",
        }
    }

    /// The interface that no other world exports.
    pub(crate) fn exports(self) -> &'static str {
        match self {
            Kind::Adapter => "adapter",
            Kind::Policy => "policy",
            Kind::Strategy => "bidding",
        }
    }

    pub(crate) fn grants(self) -> &'static [Grant] {
        match self {
            Kind::Adapter => ADAPTER_GRANTS,
            Kind::Policy => POLICY_GRANTS,
            Kind::Strategy => STRATEGY_GRANTS,
        }
    }
}

impl Plugin {
    pub(crate) fn new(code: Code, manifest: Manifest, digest: String, grants: &'static [Grant]) -> Plugin {
        let speaker = Arc::new(Speaker { id: manifest.id.clone(), counters: Counters::default() });
        Plugin { code, speaker, manifest, digest, grants }
    }

    /// The same code, with counters of its own that nobody sees.
    pub(crate) fn understudy(&self) -> Plugin {
        Plugin::new(self.code.clone(), self.manifest.clone(), self.digest.clone(), self.grants)
    }

    pub fn kind(&self) -> Kind {
        match self.code {
            Code::Adapter(_) => Kind::Adapter,
            Code::Policy(_) => Kind::Policy,
            Code::Strategy(_) => Kind::Strategy,
        }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn grants(&self) -> &'static [Grant] {
        self.grants
    }

    pub fn counters(&self) -> &Counters {
        &self.speaker.counters
    }

    /// Turns a trap into an error, and counts it.
    pub(crate) fn trapped(&self, error: &wasmtime::Error, state: &State) -> CallError {
        self.breach(Fault::of(error, state), format!("{error:#}"))
    }

    /// Counts a breach of the contract.
    pub(crate) fn breach(&self, fault: Fault, text: String) -> CallError {
        self.speaker.faulted(fault, &text);
        CallError::Fault(fault, text)
    }

    /// Turns a plugin's own refusal into an error; counts it where it is the plugin's fault.
    pub(crate) fn refused(&self, mut refused: Refused) -> CallError {
        refused.shorten();
        match &refused {
            Refused::InvalidRequest(_) | Refused::Unsupported(_) | Refused::BadUpstream(_) => {}
            Refused::InvalidConfig(text) | Refused::Internal(text) => {
                self.speaker.faulted(Fault::Error, text)
            }
        }
        CallError::Refused(refused)
    }
}

impl Speaker {
    /// Counts every fault; logs the first, second, fourth and so on of its class, so that a
    /// plugin that fails all the time does not fill the log.
    fn faulted(&self, fault: Fault, text: &str) {
        self.counters.faulted(fault);
        let count = self.counters.fault(fault);
        if count.is_power_of_two() {
            tracing::warn!(plugin = self.id, fault = fault.name(), count, ?text, "plugin fault");
        }
    }
}

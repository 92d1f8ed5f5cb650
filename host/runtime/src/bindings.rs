//! The generated bindings, and the only place where they are turned into our own types.
#![allow(missing_docs, unreachable_pub, reason = "generated; the documentation is in wit/")]

use sluice_core::json::{Edit, Pointer, Raw};
use sluice_core::plan;
use sluice_core::ranking;
use wasmtime::Store;

use crate::manifest::Declared;
use crate::state::State;
use crate::{Interned, NameKind, Setup, Target};

/// The guest's handle of the request it serves; the request itself is in the store's state,
/// so that a handle made up by the guest leads nowhere else.
pub struct InboundHandle;

pub mod adapter {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "provider-adapter",
        with: { "sluice:plugin/request.inbound": crate::bindings::InboundHandle },
        imports: { default: trappable },
    });
}

pub mod policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "routing-policy",
        with: { "sluice:plugin/log": crate::bindings::adapter::sluice::plugin::log },
        imports: { default: trappable },
    });
}

pub mod bid {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bid-strategy",
        with: { "sluice:plugin/log": crate::bindings::adapter::sluice::plugin::log },
        imports: { default: trappable },
    });
}

pub use adapter::exports::sluice::plugin::adapter as wire;
pub use adapter::exports::sluice::plugin::lifecycle as adapter_lifecycle;
pub use adapter::sluice::plugin::types::PluginError as AdapterError;
pub use bid::exports::sluice::plugin::bidding;
pub use bid::exports::sluice::plugin::lifecycle as bid_lifecycle;
pub use bid::sluice::plugin::types::PluginError as BidError;
pub use policy::exports::sluice::plugin::lifecycle as policy_lifecycle;
pub use policy::exports::sluice::plugin::policy as routing;
pub use policy::sluice::plugin::types::PluginError as PolicyError;

/// What an instance of any world is asked before it serves.
pub(crate) trait Lifecycle {
    fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Declared>;
    fn self_test(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), String>>;
}

/// Each world has a lifecycle, with the same types under another name.
macro_rules! lifecycle_conversions {
    ($lifecycle:ident, $error:ident, $world:ty) => {
        impl Lifecycle for $world {
            fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Declared> {
                self.sluice_plugin_lifecycle().call_describe(store).map(Declared::from)
            }

            fn self_test(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), String>> {
                self.sluice_plugin_lifecycle().call_self_test(store)
            }
        }

        impl From<&Setup> for $lifecycle::Setup {
            fn from(setup: &Setup) -> Self {
                let interned = |name: &Interned| $lifecycle::Interned {
                    kind: match name.kind {
                        NameKind::Model => $lifecycle::NameKind::Model,
                        NameKind::Upstream => $lifecycle::NameKind::Upstream,
                    },
                    id: name.id,
                    name: name.name.clone(),
                };
                let target = |target: &Target| $lifecycle::Target {
                    id: target.id,
                    upstream: target.upstream,
                    region: 0,
                    quality: 0,
                    capacity: 0,
                    offers: 0,
                };
                Self {
                    config_json: setup.config_json.clone(),
                    names: setup.names.iter().map(interned).collect(),
                    targets: setup.targets.iter().map(target).collect(),
                }
            }
        }

        impl From<$lifecycle::Manifest> for Declared {
            fn from(manifest: $lifecycle::Manifest) -> Self {
                Self {
                    id: manifest.id,
                    version: manifest.version,
                    doc: manifest.doc,
                    surfaces: manifest.surfaces,
                    secrets: manifest
                        .secrets
                        .into_iter()
                        .map(|slot| (slot.name, slot.required, slot.doc))
                        .collect(),
                    routes: manifest
                        .routes
                        .into_iter()
                        .map(|route| (route.endpoint, route.method, route.path))
                        .collect(),
                    headers: manifest.headers,
                    config_schema: manifest.config_schema,
                }
            }
        }

        impl From<$error> for crate::Refused {
            fn from(error: $error) -> Self {
                match error {
                    $error::InvalidConfig(text) => Self::InvalidConfig(text),
                    $error::InvalidRequest(text) => Self::InvalidRequest(text),
                    $error::Unsupported(text) => Self::Unsupported(text),
                    $error::BadUpstream(text) => Self::BadUpstream(text),
                    $error::Internal(text) => Self::Internal(text),
                }
            }
        }
    };
}

lifecycle_conversions!(adapter_lifecycle, AdapterError, adapter::ProviderAdapter);
lifecycle_conversions!(policy_lifecycle, PolicyError, policy::RoutingPolicy);
lifecycle_conversions!(bid_lifecycle, BidError, bid::BidStrategy);

impl From<&ranking::View> for routing::View {
    fn from(view: &ranking::View) -> Self {
        Self {
            tenant: view.tenant,
            model: view.model,
            endpoint: view.endpoint,
            streaming: view.streaming,
            seq: view.seq,
            seed: view.seed,
            now_ms: view.now_ms,
            session: view.session,
            prefix: view.prefix,
            budget_left: view.budget_left,
            deadline_ms: view.deadline_ms,
            needs: view.needs,
        }
    }
}

impl From<&ranking::Candidate> for routing::Candidate {
    fn from(candidate: &ranking::Candidate) -> Self {
        Self {
            id: candidate.id,
            priority: candidate.priority,
            weight: candidate.weight,
            expected: candidate.expected,
            worst: candidate.worst,
            ewma_ttft_us: candidate.ewma_ttft_us,
            ewma_total_us: candidate.ewma_total_us,
            samples: candidate.samples,
            success_permille: candidate.success_permille,
            inflight: candidate.inflight,
            breaker: candidate.breaker,
        }
    }
}

/// An edit whose pointer or value is none; says which.
pub struct BadEdit(pub String);

impl TryFrom<wire::CallPlan> for plan::Proposal {
    type Error = BadEdit;

    fn try_from(wire: wire::CallPlan) -> Result<Self, BadEdit> {
        Ok(Self {
            method: wire.method,
            path: wire.path,
            query: wire.query,
            headers: wire.headers.into_iter().map(|header| (header.name, header.value)).collect(),
            auth: wire.auth.into(),
            body: body(wire.body)?,
            limit_at: wire.limit_at.as_deref().map(pointer).transpose()?,
            framing: match wire.framing {
                wire::Framing::Whole => plan::Framing::Whole,
                wire::Framing::Sse => plan::Framing::Sse,
                wire::Framing::JsonLines => plan::Framing::JsonLines,
                wire::Framing::AwsEventStream => plan::Framing::AwsEventStream,
            },
            response: match wire.response {
                wire::ResponsePlan::SameWire => plan::ResponsePlan::SameWire,
                wire::ResponsePlan::Mapped => plan::ResponsePlan::Mapped,
            },
            carry: wire.carry,
        })
    }
}

impl From<wire::Credential> for plan::Credential {
    fn from(credential: wire::Credential) -> Self {
        let slotted = |slotted: adapter::sluice::plugin::types::Slotted| plan::Slotted {
            name: slotted.name,
            prefix: slotted.prefix,
            slot: slotted.slot,
            suffix: slotted.suffix,
        };
        match credential {
            wire::Credential::None => Self::None,
            wire::Credential::Header(place) => Self::Header(slotted(place)),
            wire::Credential::Query(place) => Self::Query(slotted(place)),
            wire::Credential::Scheme => Self::Scheme,
        }
    }
}

fn body(body: wire::BodyPlan) -> Result<plan::BodyPlan, BadEdit> {
    Ok(match body {
        wire::BodyPlan::None => plan::BodyPlan::None,
        wire::BodyPlan::Passthrough => plan::BodyPlan::Passthrough,
        wire::BodyPlan::Replace(bytes) => plan::BodyPlan::Replace(bytes),
        wire::BodyPlan::Edits(edits) => {
            plan::BodyPlan::Edits(edits.into_iter().map(edit).collect::<Result<_, _>>()?)
        }
    })
}

fn edit(edit: wire::Edit) -> Result<Edit, BadEdit> {
    let raw = |json: &str| Raw::parse(json).map_err(|error| BadEdit(format!("an edit's value: {error}")));
    Ok(match edit {
        wire::Edit::Set(placed) => Edit::Set { at: pointer(&placed.at)?, value: raw(&placed.json)? },
        wire::Edit::Insert(placed) => Edit::Insert { at: pointer(&placed.at)?, value: raw(&placed.json)? },
        wire::Edit::Remove(at) => Edit::Remove { at: pointer(&at)? },
        wire::Edit::Move(moved) => Edit::Move { from: pointer(&moved.from)?, to: pointer(&moved.to)? },
    })
}

fn pointer(text: &str) -> Result<Pointer, BadEdit> {
    Pointer::parse(text)
        .map_err(|error| BadEdit(format!("pointer {:?}: {error}", text.chars().take(80).collect::<String>())))
}

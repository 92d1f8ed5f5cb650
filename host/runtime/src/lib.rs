//! Runs plugins: loads components, bounds them, calls them, and says what went wrong.
//!
//! - [`Runtime`]: the engine and what all plugins share
//! - [`Plugin`]: one loaded component with its manifest and counters
//! - [`Adapter`], [`Policy`], [`Strategy`]: a plugin set up for one upstream, model or market, ready to be called
//! - [`Mapper`], [`Verdict`]: what an adapter makes of a vendor's answer
//! - [`Watched`]: the version that serves, and the one it replaced while it is on probation
//! - [`Folder`], [`Watcher`], [`Settling`]: which files have changed, and when to look
//! - [`Registry`]: which plugin serves under each id, and what became of each file
//! - [`Inbound`]: what an adapter may ask of the client's request
//! - [`Fault`]: how a call went wrong, by class
//!
//! Only this crate knows wasmtime; its types and the generated ones do not leave it.

mod adapter;
mod admission;
mod answering;
mod bindings;
mod bounds;
mod contract;
mod counters;
mod engine;
mod fault;
mod folder;
mod inbound;
mod linkers;
mod listing;
mod manifest;
mod news;
mod plugin;
mod policy;
mod registry;
mod rehearsal;
mod rest;
mod seal;
mod services;
mod shelf;
mod state;
mod strategy;
mod transition;
mod watched;
mod watcher;

pub use adapter::{Adapter, Decision, Planned};
pub use admission::AdmissionError;
pub use answering::{AnswerContext, Mapped, Mapper, Phase, Place, VendorAnswer, Verdict};
pub use bounds::{CallClass, MEMORY_BYTES_MAX};
pub use counters::{CallStats, Counters, Function};
pub use engine::{Pace, Runtime, RuntimeError};
pub use fault::{CallError, Fault, Refused};
pub use folder::{FILE_BYTES_MAX, FILES_MAX, Folder, Scan, Unfit};
pub use inbound::{Identity, Inbound, Shape, Sizes};
pub use linkers::Grant;
pub use listing::{FileRow, FileState, Listing};
pub use manifest::{Manifest, ManifestError, SecretSlot};
pub use news::News;
pub use plugin::{Kind, Plugin};
pub use policy::Policy;
pub use registry::{Change, PluginSet, Registry, Serving, Trial};
pub use rest::{Changes, REST, Settling};
pub use seal::{STAMP_NAME, seal, unsealed};
pub use shelf::Kept;
pub use sluice_core::probation::Outcome;
pub use strategy::Strategy;
pub use transition::{Event, Transition, Transitions};
pub use watched::{Books, Decided, Versioned, Watched};
pub use watcher::Watcher;

/// What a plugin is given before it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The operator's configuration, a JSON object.
    pub config_json: String,
    /// The names behind the numbers that it will see.
    pub names: Vec<Interned>,
    /// For policies and strategies: the targets that it will be shown as candidates, or costs of.
    pub targets: Vec<Target>,
}

/// What does not change about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: u32,
    pub upstream: u32,
}

/// A name behind a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interned {
    /// What is named.
    pub kind: NameKind,
    /// The number that views and candidates carry.
    pub id: u32,
    /// As the operator wrote it.
    pub name: String,
}

/// What a number may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Model,
    Upstream,
}

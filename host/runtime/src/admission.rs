//! What a file must be to become a plugin: a component of a known world that imports no
//! more than is granted, describes itself and passes its own test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use sha2::{Digest, Sha256};
use thread_priority::unix::{set_thread_priority_and_policy, thread_native_id};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
use wasmtime::Store;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::bindings::Lifecycle;
use crate::bindings::adapter::ProviderAdapterPre;
use crate::bindings::bid::BidStrategyPre;
use crate::bindings::policy::RoutingPolicyPre;
use crate::bounds::{BACKGROUND_MAX, CallClass};
use crate::contract;
use crate::counters::Counters;
use crate::engine::{Pace, Runtime};
use crate::fault::{Fault, shorten};
use crate::linkers::Grant;
use crate::manifest::{Declared, Manifest, ManifestError};
use crate::plugin::{AdapterCode, Code, Kind, Plugin};
use crate::seal::{self, Seal};
use crate::state::{Speaker, State};

/// The contract's package.
const PACKAGE: &str = "sluice:plugin/";

/// The contract's version.
const VERSION: &str = "0.1.0";

/// Worlds of the contract that this version of the host does not call yet, by what they export.
const NOT_BUILT: [&str; 3] = ["feedback", "consulting", "inventory"];

/// Waits in vain that shorten the next one.
const IN_VAIN_MAX: u32 = 5;

/// Why a file is not a plugin; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error("the file is empty")]
    Empty,
    #[error("this is no WebAssembly")]
    NotWasm,
    #[error("this is a core module, not a component: build it with `sluice plugin build`")]
    CoreModule,
    #[error("compiling: {0}")]
    Compile(String),
    #[error("it is damaged: its bytes are not those that were built (copied in part, or changed since)")]
    Damaged,
    #[error("the compiler broke down over it")]
    Panicked,
    #[error("it exports not exactly one of the worlds that a plugin can have (it exports: {0})")]
    World(String),
    #[error("it exports {0:?}, which this version of Sluice does not call yet")]
    NotBuilt(String),
    #[error("it imports {import:?}, which a {kind} is not granted")]
    Import { import: String, kind: &'static str },
    #[error("it does not match the world {kind}: {reason}")]
    Mismatch { kind: &'static str, reason: String },
    #[error("{function} failed ({fault}): {reason}", fault = .fault.name())]
    Trial { function: &'static str, fault: Fault, reason: String },
    #[error("its self-test says: {0}")]
    SelfTest(String),
    #[error("its manifest is not usable: {0}")]
    Manifest(#[from] ManifestError),
}

/// How long an admission waits for a processor that rests: half as long after each wait in vain,
/// since on a busy machine many files would each wait for nothing.
#[derive(Default)]
pub(crate) struct Patience {
    in_vain: AtomicU32,
}

impl Patience {
    fn left(&self) -> Duration {
        BACKGROUND_MAX / (1 << self.in_vain.load(Ordering::Relaxed).min(IN_VAIN_MAX))
    }

    fn rewarded(&self) {
        self.in_vain.store(0, Ordering::Relaxed);
    }

    fn lost(&self) {
        self.in_vain.fetch_add(1, Ordering::Relaxed);
    }
}

impl Runtime {
    /// Compiles and tries a plugin. Takes tens of milliseconds, and on a machine that has nothing to
    /// spare much longer: not for a worker.
    ///
    /// # Errors
    ///
    /// An [`AdmissionError`] that says what to change.
    pub fn admit(&self, bytes: &[u8], pace: Pace) -> Result<Plugin, AdmissionError> {
        check_form(bytes)?;
        match seal::check(bytes) {
            Seal::Whole | Seal::Absent => {}
            Seal::Broken => return Err(AdmissionError::Damaged),
        }
        match pace {
            Pace::Start => self.examine_safely(bytes, pace),
            Pace::Serving => self.examine_in_background(bytes),
        }
    }

    /// On a thread that runs only while its processor would rest; where that is too seldom, also
    /// here: a machine that has nothing to spare gets its plugin late, not never.
    fn examine_in_background(&self, bytes: &[u8]) -> Result<Plugin, AdmissionError> {
        let (done, examined) = sync_channel(1);
        let background = {
            let (runtime, bytes) = (self.clone(), bytes.to_vec());
            move || {
                lower_priority();
                // Nobody waits for one that comes late.
                let _ = done.send(runtime.examine_safely(&bytes, Pace::Serving));
            }
        };
        let started = thread::Builder::new().name("admission".into()).spawn(background);
        let patience = self.patience();
        let examined = started.ok().and_then(|_| examined.recv_timeout(patience.left()).ok());
        match examined {
            Some(examined) => {
                patience.rewarded();
                examined
            }
            None => {
                patience.lost();
                self.examine_safely(bytes, Pace::Serving)
            }
        }
    }

    /// Compilers have bugs, and this one is handed whatever lies in a folder.
    fn examine_safely(&self, bytes: &[u8], pace: Pace) -> Result<Plugin, AdmissionError> {
        let examined = catch_unwind(AssertUnwindSafe(|| self.examine(bytes, pace)));
        examined.unwrap_or(Err(AdmissionError::Panicked))
    }

    fn examine(&self, bytes: &[u8], pace: Pace) -> Result<Plugin, AdmissionError> {
        let compiled = self.compile(bytes, pace);
        let component = compiled.map_err(|error| AdmissionError::Compile(format!("{error:#}")))?;
        let kind = self.kind(&component)?;
        let grants = self.check_imports(&component, kind)?;
        let code = self.link(&component, kind, grants).map_err(|error| {
            let reason = contract::difference(kind, bytes).unwrap_or_else(|| format!("{error:#}"));
            AdmissionError::Mismatch { kind: kind.name(), reason }
        })?;
        let manifest = Manifest::check(self.trial(&code)?)?;
        Ok(Plugin::new(code, manifest, digest(bytes), grants))
    }

    fn kind(&self, component: &Component) -> Result<Kind, AdmissionError> {
        let component_type = component.component_type();
        let exports: Vec<&str> = component_type.exports(self.engine()).map(|(name, _)| name).collect();
        let has = |interface: &str| exports.iter().any(|name| interface_name(name) == Some(interface));
        if let Some(unbuilt) = NOT_BUILT.iter().find(|interface| has(interface)) {
            return Err(AdmissionError::NotBuilt((*unbuilt).into()));
        }
        let mut kinds = Kind::ALL.into_iter().filter(|kind| has(kind.exports()));
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(kind),
            (Some(_), Some(_)) | (None, _) => Err(AdmissionError::World(exports.join(", "))),
        }
    }

    fn check_imports(&self, component: &Component, kind: Kind) -> Result<&'static [Grant], AdmissionError> {
        let grants = kind.grants();
        for (import, item) in component.component_type().imports(self.engine()) {
            let granted = interface_name(import)
                .is_some_and(|interface| grants.iter().any(|grant| grant.name() == interface));
            if !granted && !self.holds_only_types(&item.ty) {
                return Err(AdmissionError::Import { import: import.into(), kind: kind.name() });
            }
        }
        Ok(grants)
    }

    /// An interface without functions gives a guest nothing.
    fn holds_only_types(&self, item: &ComponentItem) -> bool {
        match item {
            ComponentItem::ComponentInstance(instance) => {
                instance.exports(self.engine()).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
            }
            _ => false,
        }
    }

    fn link(&self, component: &Component, kind: Kind, grants: &[Grant]) -> wasmtime::Result<Code> {
        let missing = || wasmtime::Error::msg("an export is missing");
        let linker = self.linkers().of(grants).ok_or_else(|| wasmtime::Error::msg("no such grants"))?;
        let instance = linker.instantiate_pre(component)?;
        match kind {
            Kind::Adapter => {
                let world = ProviderAdapterPre::new(instance)?;
                let index = |interface: &str, function: &str| {
                    let interface =
                        component.get_export_index(None, format!("{PACKAGE}{interface}@{VERSION}"));
                    let function = interface
                        .and_then(|interface| component.get_export_index(Some(&interface), function));
                    function.ok_or_else(missing)
                };
                let (configure, plan) = (index("lifecycle", "configure")?, index("adapter", "plan")?);
                Ok(Code::Adapter(AdapterCode { world, configure, plan }))
            }
            Kind::Policy => RoutingPolicyPre::new(instance).map(Code::Policy),
            Kind::Strategy => BidStrategyPre::new(instance).map(Code::Strategy),
        }
    }

    fn trial(&self, code: &Code) -> Result<Declared, AdmissionError> {
        let speaker = Speaker { id: "(on trial)".into(), counters: Counters::default() };
        let mut store = State::store(self, speaker.into());
        State::begin(&mut store, CallClass::Trial);
        let world: wasmtime::Result<Box<dyn Lifecycle>> = match code {
            Code::Adapter(code) => code.world.instantiate(&mut store).map(|world| Box::new(world) as _),
            Code::Policy(code) => code.instantiate(&mut store).map(|world| Box::new(world) as _),
            Code::Strategy(code) => code.instantiate(&mut store).map(|world| Box::new(world) as _),
        };
        let world = world.map_err(|error| failed("instantiating", &error, &store))?;
        let declared = world.describe(&mut store).map_err(|error| failed("describe", &error, &store))?;
        State::begin(&mut store, CallClass::Trial);
        let tested = world.self_test(&mut store).map_err(|error| failed("self-test", &error, &store))?;
        tested.map_err(|mut text| {
            shorten(&mut text);
            AdmissionError::SelfTest(text)
        })?;
        Ok(declared)
    }
}

/// Runs this thread only while its processor would rest. A low priority (`nice`) is not enough: a
/// request that wakes up would wait for the end of the compiler's slice. Nor may the thread wander:
/// each move puts it before somebody (`tests/bench/RELOAD.md` has what requests feel of it).
fn lower_priority() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
    if let Err(error) = set {
        tracing::debug!(?error, "admission runs at the priority of its thread");
    }
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    if let Err(error) = sched_setaffinity(None, &here) {
        tracing::debug!(%error, "admission wanders between processors");
    }
}

fn failed(function: &'static str, error: &wasmtime::Error, store: &Store<State>) -> AdmissionError {
    AdmissionError::Trial { function, fault: Fault::of(error, store.data()), reason: format!("{error:#}") }
}

/// SHA-256 in hexadecimal: what a plugin's bytes are known by.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Tells apart what is not a component before the compiler speaks of offsets.
fn check_form(bytes: &[u8]) -> Result<(), AdmissionError> {
    match bytes {
        [] => Err(AdmissionError::Empty),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(AdmissionError::CoreModule),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => Err(AdmissionError::NotWasm),
    }
}

/// `log` of `sluice:plugin/log@0.1.0`; none for other packages.
fn interface_name(name: &str) -> Option<&str> {
    name.strip_prefix(PACKAGE)?.split('@').next()
}

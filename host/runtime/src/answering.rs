//! What an adapter makes of a vendor's answer: pieces for the client, or what an error means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_core::fault::FaultClass;
use sluice_core::price::Usage;
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::adapter::{Adapter, Configured};
use crate::bindings::adapter::ProviderAdapter;
use crate::bindings::wire;
use crate::bounds::{CallClass, MAPPERS_MAX};
use crate::counters::Function;
use crate::fault::{CallError, shorten};
use crate::plugin::Plugin;
use crate::state::State;

/// What an adapter is told of the request whose answer it maps.
#[derive(Clone, Debug)]
pub struct AnswerContext {
    pub request_id: String,
    /// As the client named it.
    pub model: String,
    pub created_s: u64,
    pub surface: u16,
    pub endpoint: u16,
    pub streaming: bool,
    /// What the adapter's plan carried.
    pub carry: Vec<u8>,
}

/// A vendor's head and body, with what may repeat a secret taken out.
#[derive(Clone, Debug)]
pub struct VendorAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A piece of the client's answer.
#[derive(Debug)]
pub struct Mapped {
    /// For the client, in the wire of its surface.
    pub wire: Vec<u8>,
    pub phase: Phase,
    /// What the vendor says was used.
    pub usage: Option<Usage>,
    /// The vendor failed inside its answer.
    pub fault: Option<Verdict>,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing that a client would miss.
    Prelude,
    Content,
    Done,
}

/// What a vendor's error means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub class: FaultClass,
    /// The model's context is too short for the request.
    pub context_length: bool,
    pub retry_after: Option<Duration>,
    /// For the client.
    pub message: String,
}

/// One streamed answer's decoder, in an instance of its own.
pub struct Mapper {
    plugin: Arc<Plugin>,
    store: Store<State>,
    world: ProviderAdapter,
    mapper: ResourceAny,
    _place: Place,
}

/// One of the places for instances that live as long as a stream; free again when dropped.
pub struct Place(Arc<AtomicUsize>);

impl Adapter {
    /// A place for a decoder, to be taken before the vendor is asked; none where too many are open.
    pub fn place(&self) -> Option<Place> {
        Place::take(self.runtime().mappers())
    }

    /// Opens a decoder for one streamed answer.
    ///
    /// # Errors
    ///
    /// The plugin's fault, counted.
    pub fn mapper(&self, context: &AnswerContext, place: Place) -> Result<Mapper, CallError> {
        let (mut store, world) = self.world(CallClass::Push)?;
        let opened = world.sluice_plugin_adapter().mapper().call_constructor(&mut store, &context.into());
        let mapper = opened.map_err(|error| self.fault_of(&error, &store))?;
        let plugin = Arc::clone(self.shared_plugin());
        Ok(Mapper { plugin, store, world, mapper, _place: place })
    }

    /// Maps an answer that is not a stream, in a fresh instance.
    ///
    /// # Errors
    ///
    /// The plugin's refusal or fault.
    pub fn whole(&self, context: &AnswerContext, answer: VendorAnswer) -> Result<Mapped, CallError> {
        let started = Instant::now();
        let (mut store, world) = self.world(CallClass::Whole)?;
        let VendorAnswer { status, headers, body } = answer;
        let guest = world.sluice_plugin_adapter();
        let mapped = guest.call_whole(&mut store, &context.into(), status, &wire_headers(headers), &body);
        self.shared_plugin().counters().called(Function::Whole, started.elapsed());
        let mapped = mapped.map_err(|error| self.fault_of(&error, &store))?;
        mapped.map(Mapped::from).map_err(|error| self.shared_plugin().refused(error.into()))
    }

    /// What a vendor's error means, in a fresh instance.
    ///
    /// # Errors
    ///
    /// The plugin's fault.
    pub fn classify(&self, context: &AnswerContext, answer: VendorAnswer) -> Result<Verdict, CallError> {
        let started = Instant::now();
        let (mut store, world) = self.world(CallClass::Plan)?;
        let VendorAnswer { status, headers, body } = answer;
        let guest = world.sluice_plugin_adapter();
        let verdict = guest.call_classify(&mut store, &context.into(), status, &wire_headers(headers), &body);
        self.shared_plugin().counters().called(Function::Classify, started.elapsed());
        verdict.map(Verdict::from).map_err(|error| self.fault_of(&error, &store))
    }

    fn world(&self, class: CallClass) -> Result<(Store<State>, ProviderAdapter), CallError> {
        let Configured { mut store, instance } = self.configured(None, class)?;
        let world = ProviderAdapter::new(&mut store, &instance);
        let world = world.map_err(|error| self.fault_of(&error, &store))?;
        State::begin(&mut store, class);
        Ok((store, world))
    }

    fn fault_of(&self, error: &wasmtime::Error, store: &Store<State>) -> CallError {
        self.shared_plugin().trapped(error, store.data())
    }
}

impl Mapper {
    /// Maps whole frames.
    ///
    /// # Errors
    ///
    /// The plugin's refusal or fault; the decoder is of no use after a fault.
    pub fn push(&mut self, frames: &[Vec<u8>]) -> Result<Mapped, CallError> {
        self.call(|world, store, mapper| {
            world.sluice_plugin_adapter().mapper().call_push(store, mapper, frames)
        })
    }

    /// After the last frame.
    ///
    /// # Errors
    ///
    /// The plugin's refusal, such as of an answer that ended too early, or its fault.
    pub fn close(&mut self) -> Result<Mapped, CallError> {
        self.call(|world, store, mapper| world.sluice_plugin_adapter().mapper().call_close(store, mapper))
    }

    fn call(
        &mut self,
        call: impl FnOnce(
            &ProviderAdapter,
            &mut Store<State>,
            ResourceAny,
        ) -> wasmtime::Result<Result<wire::Mapped, crate::bindings::AdapterError>>,
    ) -> Result<Mapped, CallError> {
        let started = Instant::now();
        State::begin(&mut self.store, CallClass::Push);
        let mapped = call(&self.world, &mut self.store, self.mapper);
        self.plugin.counters().called(Function::Push, started.elapsed());
        let mapped = mapped.map_err(|error| self.plugin.trapped(&error, self.store.data()))?;
        mapped.map(Mapped::from).map_err(|error| self.plugin.refused(error.into()))
    }
}

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Option<Place> {
        let take = |taken: usize| (taken < MAPPERS_MAX).then_some(taken + 1);
        places.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Place(Arc::clone(places)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn wire_headers(headers: Vec<(String, String)>) -> Vec<wire::Header> {
    headers.into_iter().map(|(name, value)| wire::Header { name, value }).collect()
}

impl From<&AnswerContext> for wire::Context {
    fn from(context: &AnswerContext) -> Self {
        Self {
            request_id: context.request_id.clone(),
            model: context.model.clone(),
            created_s: context.created_s,
            surface: context.surface,
            endpoint: context.endpoint,
            streaming: context.streaming,
            carry: context.carry.clone(),
        }
    }
}

impl From<wire::Mapped> for Mapped {
    fn from(mapped: wire::Mapped) -> Self {
        let phase = match mapped.phase {
            wire::Phase::Prelude => Phase::Prelude,
            wire::Phase::Content => Phase::Content,
            wire::Phase::Done => Phase::Done,
        };
        let usage = mapped.usage.map(|usage| Usage {
            input: usage.input,
            cached_input: usage.cached_input,
            cache_write: usage.cache_write,
            output: usage.output,
            reasoning: usage.reasoning,
            calls: usage.calls.into(),
            millis: usage.millis,
        });
        Self { wire: mapped.wire, phase, usage, fault: mapped.fault.map(Verdict::from) }
    }
}

impl From<wire::Verdict> for Verdict {
    fn from(verdict: wire::Verdict) -> Self {
        let mut message = verdict.message;
        shorten(&mut message);
        let class = match verdict.kind {
            wire::Failure::Transient => FaultClass::Provider,
            wire::Failure::Throttled => FaultClass::Throttled,
            wire::Failure::Credential => FaultClass::Credential,
            wire::Failure::Caller | wire::Failure::ContextLength | wire::Failure::Filtered => {
                FaultClass::Caller
            }
        };
        Self {
            class,
            context_length: matches!(verdict.kind, wire::Failure::ContextLength),
            retry_after: verdict.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
            message,
        }
    }
}

//! An adapter set up for one upstream: each request gets an instance of its own.

use std::sync::Arc;
use std::time::Instant;

use sluice_core::plan::{CallPlan, Credential, Framing, PlanBreach, Proposal};
use wasmtime::Store;
use wasmtime::component::{Instance, Resource};

use crate::Setup;
use crate::bindings::{AdapterError, BadEdit, InboundHandle, adapter_lifecycle, wire};
use crate::bounds::{CallClass, PIECES_MAX};
use crate::counters::Function;
use crate::engine::Runtime;
use crate::fault::{CallError, Fault};
use crate::inbound::Inbound;
use crate::plugin::{AdapterCode, Code, Plugin};
use crate::rehearsal;
use crate::state::State;
use crate::watched::Versioned;

/// A plugin and the configuration of one upstream.
pub struct Adapter {
    runtime: Runtime,
    plugin: Arc<Plugin>,
    code: AdapterCode,
    setup: Setup,
}

/// What an adapter decided for one request.
#[derive(Debug)]
pub struct Planned {
    pub decision: Decision,
    /// Made from nothing but the request's shape.
    pub reusable: bool,
}

/// Where the answer comes from.
#[derive(Debug)]
pub enum Decision {
    Send(Arc<CallPlan>),
    /// The adapter answered by itself: pieces to be written one by one, at least one.
    Answer(Vec<Vec<u8>>),
}

/// A configured instance.
pub(crate) struct Configured {
    pub(crate) store: Store<State>,
    pub(crate) instance: Instance,
}

impl Adapter {
    pub(crate) fn understudy(&self) -> Adapter {
        Adapter {
            runtime: self.runtime.clone(),
            plugin: Arc::new(self.plugin.understudy()),
            code: self.code.clone(),
            setup: self.setup.clone(),
        }
    }

    /// Asks for a plan, in a fresh instance.
    ///
    /// # Errors
    ///
    /// The plugin's refusal, or its fault; a fault is counted.
    pub fn plan(&self, inbound: Arc<dyn Inbound>, target_model: &str) -> Result<Planned, CallError> {
        let started = Instant::now();
        let endpoint = inbound.shape().endpoint;
        let planned = self.configured(Some(inbound), CallClass::Plan).and_then(|mut instance| {
            let decision = instance.plan(self, target_model)?;
            Ok((decision, !instance.store.data().looked_closer))
        });
        self.plugin.counters().called(Function::Plan, started.elapsed());
        let (decision, shape_only) = planned?;
        match decision {
            wire::Decision::Send(plan) => {
                let plan = self.checked(plan, endpoint)?;
                Ok(Planned { decision: Decision::Send(Arc::new(plan)), reusable: shape_only })
            }
            wire::Decision::Answer(pieces) => {
                if pieces.is_empty() || pieces.len() > PIECES_MAX {
                    let text = format!("answered in {} pieces; wanted 1 to {PIECES_MAX}", pieces.len());
                    return Err(self.plugin.breach(Fault::TooLarge, text));
                }
                let pieces = pieces.into_iter().map(|piece| piece.wire).collect();
                Ok(Planned { decision: Decision::Answer(pieces), reusable: false })
            }
        }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn shared_plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    pub(crate) fn configured(
        &self,
        inbound: Option<Arc<dyn Inbound>>,
        class: CallClass,
    ) -> Result<Configured, CallError> {
        let mut store = State::store(&self.runtime, Arc::clone(&self.plugin.speaker));
        store.data_mut().inbound = inbound;
        State::begin(&mut store, class);
        match self.configure(&mut store) {
            Ok((instance, Ok(()))) => Ok(Configured { store, instance }),
            Ok((_, Err(error))) => Err(self.plugin.refused(error.into())),
            Err(error) => Err(self.plugin.trapped(&error, store.data())),
        }
    }

    fn configure(&self, store: &mut Store<State>) -> wasmtime::Result<(Instance, Result<(), AdapterError>)> {
        let instance = self.code.world.instance_pre().instantiate(&mut *store)?;
        let configure = instance
            .get_typed_func::<(&adapter_lifecycle::Setup,), (Result<(), AdapterError>,)>(
                &mut *store,
                self.code.configure,
            )?;
        let (configured,) = configure.call(&mut *store, (&(&self.setup).into(),))?;
        Ok((instance, configured))
    }

    fn checked(&self, plan: wire::CallPlan, endpoint: u16) -> Result<CallPlan, CallError> {
        let proposal =
            Proposal::try_from(plan).map_err(|BadEdit(text)| self.plugin.breach(Fault::Edit, text))?;
        let framed = matches!(proposal.framing, Framing::Whole | Framing::Sse);
        if !framed || proposal.auth == Credential::Scheme {
            let text = "framing by JSON lines or AWS events, and signing schemes, are not built yet";
            return Err(self.plugin.breach(Fault::NotBuilt, text.to_owned()));
        }
        CallPlan::check(proposal, endpoint, &self.plugin.manifest().declared).map_err(|breach| {
            let fault = match &breach {
                PlanBreach::Path { .. } => Fault::Path,
                PlanBreach::Route { .. } => Fault::Route,
                PlanBreach::HeaderUndeclared(_)
                | PlanBreach::HeaderMalformed(_)
                | PlanBreach::HeaderReserved(_) => Fault::Header,
                PlanBreach::Slot(_) => Fault::Slot,
                PlanBreach::TooLarge => Fault::TooLarge,
            };
            self.plugin.breach(fault, breach.to_string())
        })
    }

    /// Counts a breach that only the host could see, such as edits that fit no body.
    pub fn breach(&self, fault: Fault, text: String) -> CallError {
        self.plugin.breach(fault, text)
    }
}

impl Versioned for Adapter {
    fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn set_up(runtime: &Runtime, plugin: &Arc<Plugin>, setup: Setup) -> Option<Result<Adapter, CallError>> {
        let Code::Adapter(code) = &plugin.code else { return None };
        let adapter =
            Adapter { runtime: runtime.clone(), plugin: Arc::clone(plugin), code: code.clone(), setup };
        Some(adapter.configured(None, CallClass::Trial).map(|_| adapter))
    }

    fn rehearse(&self) -> Result<(), CallError> {
        rehearsal::adapter(self)
    }
}

impl Configured {
    fn plan(&mut self, adapter: &Adapter, target_model: &str) -> Result<wire::Decision, CallError> {
        let plugin = &adapter.plugin;
        let pushed = self.store.data_mut().table.push(InboundHandle);
        let handle: Resource<InboundHandle> =
            pushed.map_err(|error| plugin.breach(Fault::TooLarge, error.to_string()))?;
        State::begin(&mut self.store, CallClass::Plan);
        let answered = self.call_plan(adapter, handle, target_model);
        let answered = answered.map_err(|error| plugin.trapped(&error, self.store.data()))?;
        answered.map_err(|error| plugin.refused(error.into()))
    }

    fn call_plan(
        &mut self,
        adapter: &Adapter,
        handle: Resource<InboundHandle>,
        target_model: &str,
    ) -> wasmtime::Result<Result<wire::Decision, AdapterError>> {
        type Parameters<'a> = (Resource<InboundHandle>, &'a str);
        let plan = self.instance.get_typed_func::<Parameters<'_>, (Result<wire::Decision, AdapterError>,)>(
            &mut self.store,
            adapter.code.plan,
        )?;
        let (answered,) = plan.call(&mut self.store, (handle, target_model))?;
        Ok(answered)
    }
}

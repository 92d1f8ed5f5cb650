//! What to send: the adapter's plan, laid over the client's body; and who made it, who is asked about
//! the answer too.

use std::sync::Arc;

use bytes::Bytes;
use sluice_core::json::SpliceError;
use sluice_core::plan::BodyPlan;
use sluice_runtime::{Adapter, CallError, Decided, Decision, Fault, Outcome, Refused, Versioned};

use crate::call::{Call, SharedCall};
use crate::fault::FaultKind;
use crate::prepared::Prepared;
use crate::refusal::Refusal;
use crate::routes::Upstream;

/// A request's way out.
pub(crate) enum Way {
    /// Ready but for the secret, with the bytes that will really be sent.
    Send(Arc<Prepared>, Bytes),
    Answer(Vec<Vec<u8>>),
}

/// The version of an adapter that made a plan: what the vendor answers to it, the same version reads.
/// It is told once how that turned out; well, where nothing else is said.
pub(crate) struct Planner {
    upstream: Arc<Upstream>,
    adapter: Arc<Adapter>,
    told: bool,
    /// What it made, to be compared while it is on probation.
    made: Option<Made>,
}

/// A plan laid over a request.
struct Made {
    target_model: String,
    prepared: Arc<Prepared>,
    body: Bytes,
}

/// Which version of an adapter is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The one that serves.
    Current,
    /// The one that it replaced: the one on probation has just broken down.
    Before,
}

/// Why there is none.
pub(crate) enum Unplanned {
    /// The request is wrong, for everybody.
    Refused(Refusal),
    /// This vendor cannot serve it; another may.
    Unserved(String),
    /// The adapter failed.
    Plugin(String),
}

/// The adapter's plan, ready to be sent.
pub(crate) fn plan(
    upstream: &Arc<Upstream>,
    call: &SharedCall,
    target_model: &str,
    version: Version,
) -> Result<(Way, Planner), Unplanned> {
    let plan = |adapter: &Adapter| plan_by(adapter, upstream, call, target_model);
    let decided = match version {
        Version::Current => upstream.adapter.decide(plan),
        Version::Before => upstream.adapter.decide_as_before(plan),
    };
    call.check_duplicate().map_err(Unplanned::Refused)?;
    let Decided { decision, by } = decided.map_err(|error| {
        let plugin = &upstream.adapter.current().plugin().manifest().id;
        tracing::debug!(request = call.request_id, plugin, %error, "the adapter did not plan");
        match error {
            CallError::Refused(Refused::InvalidRequest(text)) => {
                Unplanned::Refused(Refusal::Unserved { text })
            }
            CallError::Refused(Refused::Unsupported(text)) => Unplanned::Unserved(text),
            CallError::Refused(_) | CallError::Fault(..) => Unplanned::Plugin(plugin.clone()),
        }
    })?;
    let way = decision.map_err(Unplanned::Refused)?;
    let mut planner = Planner { upstream: Arc::clone(upstream), adapter: by, told: false, made: None };
    if let (Way::Send(prepared, body), true) = (&way, planner.is_replaceable()) {
        let (prepared, body) = (Arc::clone(prepared), body.clone());
        planner.made = Some(Made { target_model: target_model.into(), prepared, body });
    }
    Ok((way, planner))
}

/// One version's plan: a kept one where it depends on the shape alone, else from a fresh instance.
/// Its faults are errors; what is wrong with the client's request is a refusal.
fn plan_by(
    adapter: &Adapter,
    upstream: &Upstream,
    call: &SharedCall,
    target_model: &str,
) -> Result<Result<Way, Refusal>, CallError> {
    let current = Arc::ptr_eq(adapter.plugin(), upstream.adapter.current().plugin());
    if current && let Some(prepared) = upstream.plans.get(&call.shape, target_model) {
        return splice(adapter, prepared, call);
    }
    let inbound: SharedCall = Arc::clone(call);
    let planned = adapter.plan(inbound, target_model)?;
    let plan = match planned.decision {
        Decision::Answer(pieces) => return Ok(Ok(Way::Answer(pieces))),
        Decision::Send(plan) => plan,
    };
    let prepared = Prepared::new(plan, upstream.base_url.as_ref());
    let prepared = Arc::new(prepared.map_err(|error| adapter.breach(Fault::Route, error.to_string()))?);
    if current && planned.reusable {
        upstream.plans.insert(&call.shape, target_model, Arc::clone(&prepared));
    }
    splice(adapter, prepared, call)
}

fn splice(
    adapter: &Adapter,
    prepared: Arc<Prepared>,
    call: &Call,
) -> Result<Result<Way, Refusal>, CallError> {
    let spliced = match &prepared.plan.body {
        BodyPlan::None => Ok(Bytes::new()),
        BodyPlan::Passthrough => Ok(call.text().clone()),
        BodyPlan::Replace(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        BodyPlan::Edits(edits) => call.splice(edits).map(Bytes::from),
    };
    match spliced {
        Ok(body) => Ok(Ok(Way::Send(prepared, body))),
        Err(SpliceError::Duplicate(duplicate)) => Ok(Err(Refusal::Duplicate(duplicate))),
        Err(error @ (SpliceError::NotAnObject { .. } | SpliceError::TooManyMembers { .. })) => {
            Ok(Err(Refusal::Unfit(error)))
        }
        Err(
            error @ (SpliceError::MissingParent { .. } | SpliceError::WholeText | SpliceError::TooManyEdits),
        ) => Err(adapter.breach(Fault::Edit, error.to_string())),
    }
}

impl Planner {
    pub(crate) fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// On probation: the version that it replaced may do better.
    fn is_replaceable(&self) -> bool {
        let versions = &self.upstream.adapter;
        versions.before().is_some() && Arc::ptr_eq(&self.adapter, versions.current())
    }

    /// The vendor did not take what this version had made. Where the version before would have made
    /// the same, that is the caller's mistake.
    pub(crate) fn misplanned(&mut self, call: &SharedCall) {
        let before = self.upstream.adapter.before().filter(|_| !self.told);
        let (Some(made), Some(before)) = (self.made.take(), before) else {
            return self.tell(Outcome::Error);
        };
        match plan_by(before, &self.upstream, call, &made.target_model) {
            Ok(Ok(Way::Send(prepared, body))) if prepared.sends_as(&made.prepared) && body == made.body => {
                self.told = true;
            }
            Ok(_) | Err(_) => self.tell(Outcome::Error),
        }
    }

    /// What its failure over an answer is. That a vendor answers nonsense says nothing of it.
    pub(crate) fn failed(&mut self, error: &CallError) -> FaultKind {
        let plugin = &self.adapter.plugin().manifest().id;
        tracing::debug!(plugin, %error, "the adapter makes nothing of the answer");
        let (plugin, replaceable) = (plugin.clone(), self.is_replaceable());
        let outcome = match error {
            CallError::Refused(Refused::BadUpstream(_)) => {
                self.told = true;
                return FaultKind::Malformed;
            }
            CallError::Fault(fault, _) if fault.is_trap() => Outcome::Trap,
            CallError::Refused(_) | CallError::Fault(..) => Outcome::Error,
        };
        self.tell(outcome);
        FaultKind::Plugin { plugin, replaceable }
    }

    fn tell(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.told, true) {
            self.upstream.adapter.turned_out(&self.adapter, outcome);
        }
    }
}

impl Drop for Planner {
    fn drop(&mut self) {
        self.tell(Outcome::Good);
    }
}

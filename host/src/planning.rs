//! What to send: the adapter's plan, laid over the client's body.

use std::sync::Arc;

use bytes::Bytes;
use sluice_core::json::SpliceError;
use sluice_core::plan::BodyPlan;
use sluice_runtime::{Adapter, CallError, Decided, Decision, Fault, Refused, Versioned};

use crate::call::{Call, SharedCall};
use crate::prepared::Prepared;
use crate::refusal::Refusal;
use crate::routes::Upstream;

/// A request's way out.
pub(crate) enum Way {
    /// Ready but for the secret, with the bytes that will really be sent.
    Send(Arc<Prepared>, Bytes),
    Answer(Vec<Vec<u8>>),
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
    upstream: &Upstream,
    call: &SharedCall,
    target_model: &str,
) -> Result<Decided<Way>, Unplanned> {
    let decided = upstream.adapter.decide(|adapter| plan_by(adapter, upstream, call, target_model));
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
    Ok(Decided { decision: decision.map_err(Unplanned::Refused)?, by })
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

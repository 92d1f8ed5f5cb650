//! What is linked: one linker per set of grants, so that what is not granted is not there.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::adapter::sluice::plugin::{log, request};
use crate::bindings::bid::sluice::plugin::job_text;
use crate::engine::RuntimeError;
use crate::plugin::Kind;
use crate::state::State;

/// A host service that a kind of plugin may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    Log,
    Request,
    JobText,
}

/// The linkers of the grant sets in use.
pub(crate) struct Linkers {
    sets: Vec<(&'static [Grant], Linker<State>)>,
}

/// What adapters may import.
pub(crate) const ADAPTER_GRANTS: &[Grant] = &[Grant::Log, Grant::Request];

/// What policies may import.
pub(crate) const POLICY_GRANTS: &[Grant] = &[Grant::Log];

/// What bid strategies may import.
pub(crate) const STRATEGY_GRANTS: &[Grant] = &[Grant::Log, Grant::JobText];

impl Grant {
    /// As in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Grant::Log => "log",
            Grant::Request => "request",
            Grant::JobText => "job-text",
        }
    }

    fn link(self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        match self {
            Grant::Log => log::add_to_linker::<State, HasSelf<State>>(linker, |state| state),
            Grant::Request => request::add_to_linker::<State, HasSelf<State>>(linker, |state| state),
            Grant::JobText => job_text::add_to_linker::<State, HasSelf<State>>(linker, |state| state),
        }
    }
}

impl Linkers {
    pub(crate) fn new(engine: &wasmtime::Engine) -> Result<Linkers, RuntimeError> {
        let mut sets = Vec::new();
        for grants in Kind::ALL.map(Kind::grants) {
            let mut linker = Linker::new(engine);
            for grant in grants {
                grant.link(&mut linker).map_err(RuntimeError::Linking)?;
            }
            sets.push((grants, linker));
        }
        Ok(Linkers { sets })
    }

    pub(crate) fn of(&self, grants: &[Grant]) -> Option<&Linker<State>> {
        self.sets.iter().find(|(set, _)| *set == grants).map(|(_, linker)| linker)
    }
}

//! What a budget says where it refuses.

use sluice_core::money::NanoUsd;
use sluice_ledger::runs::{EndedBy, RunRefused};

/// An account that refuses.
#[derive(Debug)]
pub(crate) struct BudgetRefusal {
    /// Nothing comes back before the window ends.
    pub(crate) exhausted: bool,
    pub(crate) budget: String,
    pub(crate) scope: String,
    pub(crate) left: NanoUsd,
    pub(crate) held: NanoUsd,
    pub(crate) wanted: NanoUsd,
    /// Seconds until a new window begins; none: there is none.
    pub(crate) resets_in_s: Option<u64>,
}

impl BudgetRefusal {
    pub(super) fn message(&self) -> String {
        let BudgetRefusal { budget, scope, left, held, wanted, .. } = self;
        let whose = if scope.is_empty() { String::new() } else { format!(" of {scope:?}") };
        let reset = match self.resets_in_s {
            Some(seconds) => format!(" It starts afresh in {seconds} s."),
            None => String::new(),
        };
        match self.exhausted {
            true => format!(
                "The budget {budget:?}{whose} has {left} USD left, and this request may cost {wanted} USD.{reset}"
            ),
            false => format!(
                "The budget {budget:?}{whose} has {left} USD left and {held} USD held by requests under way; this one may cost {wanted} USD. Ask again when they have ended.{reset}"
            ),
        }
    }
}

/// Why a run is not drawn on, and what helps.
pub(super) fn run_message(refused: &RunRefused) -> String {
    match refused {
        RunRefused::Ended { budget, run, by } => {
            let how = match by {
                EndedBy::Closed => "was closed",
                EndedBy::Idle => "has ended, since nobody drew on it for long",
            };
            format!("The run {:?} {how} (budget {budget:?}): begin another one.", run.name())
        }
        RunRefused::TooMany { budget, runs_max } => format!(
            "The budget {budget:?} lets this key have {runs_max} runs at once: one has to be closed, or to rest, before another begins."
        ),
    }
}

//! Orders targets by what the request may cost there, the dearest first; those without a price
//! come last.

use std::cmp::Reverse;

use sluice_plugin::policy::{
    Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order, manifest,
};

/// What a candidate without a price shows: 2^53 - 1.
const NO_PRICE: u64 = (1 << 53) - 1;

struct Dearest;

impl Policy for Dearest {
    fn describe() -> Manifest {
        manifest("dearest", env!("CARGO_PKG_VERSION"), "The dearest for this request first.")
    }

    fn configure(_setup: Setup) -> Result<Dearest, PluginError> {
        Ok(Dearest)
    }

    fn rank(&self, _view: View, mut candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        candidates.sort_by_key(|candidate| {
            let priced = candidate.expected < NO_PRICE;
            (!priced, Reverse(candidate.expected))
        });
        Ok(in_order(&candidates))
    }
}

sluice_plugin::export_policy!(Dearest);

//! Orders targets by the operator's priority: lower first, then the cheaper, then the
//! order of the configuration.

use sluice_plugin::policy::{
    Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order, manifest,
};

struct Priority;

impl Policy for Priority {
    fn describe() -> Manifest {
        let doc = "Lower priority first; among equals the cheaper, then the order of the configuration.";
        manifest("priority", env!("CARGO_PKG_VERSION"), doc)
    }

    fn configure(_setup: Setup) -> Result<Priority, PluginError> {
        Ok(Priority)
    }

    fn rank(&self, _view: View, mut candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        candidates.sort_by_key(|candidate| (candidate.priority, candidate.expected));
        Ok(in_order(&candidates))
    }
}

sluice_plugin::export_policy!(Priority);

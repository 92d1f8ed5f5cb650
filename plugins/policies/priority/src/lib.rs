//! Orders targets by the operator's priority: lower first, then the cheaper, then the
//! order of the configuration.

use sluice_plugin::policy::{Candidate, Manifest, Policy, PluginError, Ranking, Setup, View, in_order};

struct Priority;

impl Policy for Priority {
    fn describe() -> Manifest {
        Manifest {
            id: "priority".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            doc: "Lower priority first; among equals the cheaper, then the order of the configuration.".into(),
            surfaces: Vec::new(),
            secrets: Vec::new(),
            routes: Vec::new(),
            headers: Vec::new(),
            config_schema: String::new(),
            extra: Vec::new(),
        }
    }

    fn configure(_setup: Setup) -> Result<Priority, PluginError> {
        Ok(Priority)
    }

    fn rank(&self, _view: View, mut candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        candidates.sort_by_key(|candidate| (candidate.priority, !candidate.priced, candidate.expected));
        Ok(in_order(&candidates))
    }
}

sluice_plugin::export_policy!(Priority);

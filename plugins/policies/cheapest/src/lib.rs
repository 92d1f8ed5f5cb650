//! Orders targets by what the request will cost there; targets without a price come last.

use serde::Deserialize;
use sluice_plugin::policy::{
    Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order, manifest,
};

struct Cheapest {
    by: By,
}

/// Which of a candidate's two figures counts.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum By {
    /// What it will probably cost.
    #[default]
    Expected,
    /// What it may cost at most.
    Worst,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    by: By,
}

impl By {
    fn cost(self, candidate: &Candidate) -> u64 {
        match self {
            By::Expected => candidate.expected,
            By::Worst => candidate.worst,
        }
    }
}

impl Policy for Cheapest {
    fn describe() -> Manifest {
        let doc =
            "The cheapest for this request first; among equals by priority. Unpriced targets come last.";
        Manifest {
            config_schema: include_str!("schema.json").into(),
            ..manifest("cheapest", env!("CARGO_PKG_VERSION"), doc)
        }
    }

    fn configure(setup: Setup) -> Result<Cheapest, PluginError> {
        let config: Config = serde_json::from_str(&setup.config_json)
            .map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        Ok(Cheapest { by: config.by })
    }

    fn rank(&self, _view: View, mut candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        candidates.sort_by_key(|candidate| (self.by.cost(candidate), candidate.priority));
        Ok(in_order(&candidates))
    }
}

sluice_plugin::export_policy!(Cheapest);

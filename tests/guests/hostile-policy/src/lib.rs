//! A policy that ranks backwards on a model's first request and misbehaves on all others.
//!
//! Backwards, so that a test sees whose order was followed: this one's or the host's.

mod misdeeds;

use serde::Deserialize;
use sluice_plugin::policy::{Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order};

struct Hostile {
    misdeed: Misdeed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    misdeed: Misdeed,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Misdeed {
    Spin,
    Recurse,
    Overflow,
    Hoard,
    Huge,
    Panic,
    Error,
    Stranger,
    Twice,
    Empty,
}

impl Policy for Hostile {
    fn describe() -> Manifest {
        Manifest {
            id: "hostile-policy".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            doc: "For tests: honest once, then misbehaves as its configuration says.".into(),
            surfaces: Vec::new(),
            secrets: Vec::new(),
            routes: Vec::new(),
            headers: Vec::new(),
            config_schema: include_str!("schema.json").into(),
            extra: Vec::new(),
        }
    }

    fn configure(setup: Setup) -> Result<Hostile, PluginError> {
        let config: Config = serde_json::from_str(&setup.config_json)
            .map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        Ok(Hostile { misdeed: config.misdeed })
    }

    fn rank(&self, view: View, mut candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        candidates.reverse();
        let mut ranking = in_order(&candidates);
        if view.seq == 0 {
            return Ok(ranking);
        }
        match self.misdeed {
            Misdeed::Spin => misdeeds::spin(),
            Misdeed::Recurse => return failed(misdeeds::recurse()),
            Misdeed::Overflow => return failed(misdeeds::overflow()),
            Misdeed::Hoard => misdeeds::hoard(),
            Misdeed::Huge => ranking.order = misdeeds::huge(),
            Misdeed::Panic => panic!("a guest gave up"),
            Misdeed::Error => return Err(PluginError::Internal("a guest says that it failed".into())),
            Misdeed::Stranger => ranking.order[0] = 4_000_000_000,
            Misdeed::Twice => ranking.order.push(ranking.order[0]),
            Misdeed::Empty => ranking.order.clear(),
        }
        Ok(ranking)
    }
}

fn failed(result: u64) -> Result<Ranking, PluginError> {
    Err(PluginError::Internal(format!("came to an end with {result}")))
}

sluice_plugin::export_policy!(Hostile);

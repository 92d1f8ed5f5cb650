//! A policy whose first choice is in its mark, and that goes wrong in the way that the mark says.

#[path = "../../mark.rs"]
mod mark;

use mark::{burn, mark, spin};
use sluice_plugin::policy::{
    Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order, manifest,
};

struct Marked;

impl Policy for Marked {
    fn describe() -> Manifest {
        if mark().0 == "spin-in-describe" {
            spin();
        }
        manifest("marked-policy", env!("CARGO_PKG_VERSION"), "For tests: chooses as was written into it.")
    }

    fn configure(_setup: Setup) -> Result<Marked, PluginError> {
        Ok(Marked)
    }

    fn rank(&self, view: View, mut candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        let (manner, first) = mark();
        match manner {
            "trap-1-in-50" if view.seq % 50 == 49 => panic!("a guest gave up"),
            "slow" => burn(200_000),
            _ => {}
        }
        let first: usize = first.parse().unwrap_or_default();
        let first = first % candidates.len();
        candidates.rotate_left(first);
        Ok(in_order(&candidates))
    }
}

sluice_plugin::export_policy!(Marked);

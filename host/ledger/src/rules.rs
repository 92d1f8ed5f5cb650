//! What the operator's configuration says that the ledger goes by while it runs.

use std::collections::BTreeMap;

use crate::retention::LIMIT_BYTES;
use crate::spending::Spending;

/// The rules of the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bytes that the database and its log may have on the disk.
    pub retention_bytes: u64,
    /// Of each budget that has an account for each run, by its name.
    pub runs: BTreeMap<String, RunRules>,
}

/// When runs of a budget end, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRules {
    /// Seconds after which a run that nobody has drawn on has ended.
    pub idle_s: i64,
    /// Runs of one key that are open at once, at most.
    pub runs_max: u32,
}

/// Gives the rules of the moment, and lets the time of budgets go on ([`Spending::keep_clock`]) where
/// nobody calls. The writer asks about once a second, and before it leases.
pub type AskRules = Box<dyn Fn() -> Rules + Send + Sync>;

impl Default for Rules {
    fn default() -> Rules {
        Rules { retention_bytes: LIMIT_BYTES, runs: BTreeMap::new() }
    }
}

impl Spending {
    /// The writer goes by what this gives from now on; by the default before. Once: what is said later
    /// changes nothing.
    pub fn follow(&self, ask: AskRules) {
        // Who comes second is not heard, as promised.
        let _ = self.rules.set(ask);
    }

    pub(crate) fn rules_now(&self) -> Rules {
        self.rules.get().map_or_else(Rules::default, |ask| ask())
    }
}

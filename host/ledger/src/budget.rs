//! What a budget caps, and which account of it an attempt draws on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sluice_core::books::{Cap, Mode};
use sluice_core::money::NanoUsd;

/// One cap of the operator's; each scope value has an account of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Unique; accounts are found by it.
    pub name: Arc<str>,
    /// For each account.
    pub cap: NanoUsd,
    /// Whether it refuses.
    pub mode: Mode,
}

impl From<&Budget> for Cap {
    fn from(budget: &Budget) -> Cap {
        Cap { amount: budget.cap, mode: budget.mode }
    }
}

/// The cap of each budget, by its name.
pub type Caps = HashMap<Arc<str>, Cap>;

/// What a budget has an account for each of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One account for all.
    All,
    /// Each key.
    Key,
    /// Each team.
    Team,
    /// Each run of a key: the key's id, a slash, the run, which is empty where a call names none.
    Run,
    /// Each model.
    Model,
}

/// What the names of keys' own budgets begin with, and those of no others.
pub const OF_THE_KEY: &str = "of the key, ";

/// The name of a key's own budget that has no window.
pub const IN_TOTAL: &str = "of the key, in total";

/// The scope of each budget of the configuration, by its name.
pub type Scopes = BTreeMap<String, Scope>;

/// Whose account of a budget, and of which window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey {
    /// The budget's name.
    pub budget: Arc<str>,
    /// The key's id, the run, the model and so on; empty where all share one.
    pub scope: Arc<str>,
    /// When its window began, in seconds since the Unix epoch.
    pub start_s: i64,
}

/// An account that an attempt draws on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// By whose rules, where the operator has not changed them since.
    pub budget: Arc<Budget>,
    /// Which account of it.
    pub key: AccountKey,
    /// When the window ends, in seconds since the Unix epoch; none: it does not.
    pub resets_s: Option<i64>,
}

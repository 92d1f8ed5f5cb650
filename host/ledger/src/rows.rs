//! The ledger: one row for each call, and sums by day for whoever asks later.

use std::collections::BTreeMap;

use compact_str::CompactString;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::store::{Batch, StoreError, number};
use sluice_core::money::NanoUsd;

/// Milliseconds of a day; sums are by the day in UTC.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The largest count of tokens, of a call and of a sum: a quadrillion. Vendors say what they like; what
/// the database cannot add up would keep it from taking anything more.
const COUNT_MAX: u64 = 1 << 50;

/// How a sum that is there takes in another.
pub(crate) const ADD_UP: &str = "calls = calls + excluded.calls, \
     input = min(input + excluded.input, 1 << 50), output = min(output + excluded.output, 1 << 50), \
     cost = min(cost + excluded.cost, 1000000000 * 1000000000)";

/// One call, as it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// When it came, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The request's id.
    pub request: CompactString,
    /// The key's id; empty where none is required.
    pub key: CompactString,
    /// The key's team; empty without one.
    pub team: CompactString,
    /// The run; empty without one.
    pub run: CompactString,
    /// As configured: what clients ask for, a pattern as it is written.
    pub model: CompactString,
    /// Who answered, or was asked last.
    pub upstream: CompactString,
    /// Its name for the model.
    pub target_model: CompactString,
    /// Upstreams that were asked, in order.
    pub tried: CompactString,
    /// Tokens by class, of all attempts.
    pub input: u64,
    /// Read from a cache.
    pub cached_input: u64,
    /// Written to a cache.
    pub cache_write: u64,
    /// Without reasoning.
    pub output: u64,
    /// Reasoning.
    pub reasoning: u64,
    /// Paid tool calls.
    pub calls: u64,
    /// What all attempts cost, nano-dollars.
    pub cost: u64,
    /// From the request to the first content, milliseconds.
    pub first_ms: u32,
    /// From the request to the end, milliseconds.
    pub total_ms: u32,
    /// How it ended: a word of a closed set.
    pub outcome: CompactString,
    /// What the cost goes by: `usage`, `floor`, `hold`, `nothing`; `operator` where somebody said it.
    pub basis: CompactString,
}

/// What sums are made by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group<'r> {
    /// Days since the Unix epoch.
    day: u64,
    key: &'r str,
    team: &'r str,
    run: &'r str,
    model: &'r str,
    upstream: &'r str,
}

#[derive(Default)]
struct Sum {
    calls: u64,
    input: u64,
    output: u64,
    cost: u64,
}

impl Batch<'_> {
    /// Writes rows, and adds them to the sums.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn add_rows<'r>(&self, rows: impl IntoIterator<Item = &'r Row>) -> Result<(), StoreError> {
        let mut sums: BTreeMap<Group<'_>, Sum> = BTreeMap::new();
        let add = "INSERT INTO calls VALUES \
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
        let mut add = self.connection().prepare_cached(add)?;
        for row in rows {
            add.execute(params![
                integer(row.at_ms),
                row.request.as_str(),
                row.key.as_str(),
                row.team.as_str(),
                row.run.as_str(),
                row.model.as_str(),
                row.upstream.as_str(),
                row.target_model.as_str(),
                row.tried.as_str(),
                integer(row.input),
                integer(row.cached_input),
                integer(row.cache_write),
                integer(row.output),
                integer(row.reasoning),
                integer(row.calls),
                nanos(row.cost),
                row.first_ms,
                row.total_ms,
                row.outcome.as_str(),
                row.basis.as_str(),
            ])?;
            let group = Group {
                day: row.at_ms / DAY_MS,
                key: &row.key,
                team: &row.team,
                run: &row.run,
                model: &row.model,
                upstream: &row.upstream,
            };
            let sum = sums.entry(group).or_default();
            sum.calls += 1;
            sum.input = sum
                .input
                .saturating_add(row.input.saturating_add(row.cached_input).saturating_add(row.cache_write));
            sum.output = sum.output.saturating_add(row.output.saturating_add(row.reasoning));
            sum.cost = sum.cost.saturating_add(row.cost);
        }
        self.add_sums(sums)
    }

    fn add_sums(&self, sums: BTreeMap<Group<'_>, Sum>) -> Result<(), StoreError> {
        let add = format!(
            "INSERT INTO usage VALUES (date(?1, 'unixepoch'), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT DO UPDATE SET {ADD_UP}"
        );
        let mut add = self.connection().prepare_cached(&add)?;
        for (group, sum) in sums {
            add.execute(params![
                integer(group.day * (DAY_MS / 1000)),
                group.key,
                group.team,
                group.run,
                group.model,
                group.upstream,
                integer(sum.calls),
                integer(sum.input),
                integer(sum.output),
                nanos(sum.cost),
            ])?;
        }
        Ok(())
    }
}

/// What no call costs is the most.
fn nanos(cost: u64) -> i64 {
    number(NanoUsd::from_nanos(cost).min(NanoUsd::CAP_MAX))
}

/// Counts that no vendor reaches are the largest.
fn integer(count: u64) -> i64 {
    count.min(COUNT_MAX).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::usage::{Query, Which};

    #[test]
    fn counts_that_no_vendor_reaches_do_not_stop_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
        let most = u64::MAX;
        let row =
            Row { input: most, cached_input: most, output: most, reasoning: most, cost: 1, ..Row::default() };
        let query = Query { by: Vec::new(), which: Which::default(), limit: 1 };
        for round in 1..4 {
            let batch = store.batch().unwrap();
            batch.add_rows(&[row.clone(), Row { key: "k".into(), ..row.clone() }]).unwrap();
            batch.commit().unwrap();
            let sum = store.usage(&query).unwrap().rows.remove(0);
            assert_eq!((sum.calls, sum.cost.nanos()), (2 * round, 2 * round));
            assert!(sum.input >= COUNT_MAX && sum.output >= COUNT_MAX);
        }
    }

    #[test]
    fn costs_that_no_call_has_do_not_stop_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
        let query = Query { by: Vec::new(), which: Which::default(), limit: 1 };
        for _ in 0..20 {
            let batch = store.batch().unwrap();
            batch.add_rows(&[Row { cost: u64::MAX, ..Row::default() }]).unwrap();
            batch.commit().unwrap();
            assert_eq!(store.usage(&query).unwrap().rows[0].cost, NanoUsd::CAP_MAX);
        }
    }
}

//! Whether what is stored agrees with itself: what accounts were charged, what calls cost, what is in
//! doubt.
//!
//! It reads one moment of the database and changes nothing. What it finds is listed, not judged: an
//! attempt that cost more than was held takes an account over its cap, and so does a cap that was
//! lowered.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction};
use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;

use crate::budget::{AccountKey, Scope, Scopes};
use crate::doubt::{DoubtId, explained, ids_of};
use crate::retention::{Gone, gone};
use crate::rows::DAY_MS;
use crate::store::{Store, StoreError, amount};
use crate::usage::account_key;

/// Findings that are listed at most: who has more needs a backup, not a longer list.
pub const FINDINGS_MAX: usize = 1000;

/// What the store does not know.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The cap of each budget, by its name. Others are not checked for theirs.
    pub caps: BTreeMap<String, NanoUsd>,
    /// The scope of each budget, by its name. Others are not held against their calls.
    ///
    /// A budget belongs here if it counts all calls of its scope: not one that is younger than the
    /// calls, or for some upstreams alone.
    pub scopes: Scopes,
    /// Whether a gateway has the folder open.
    pub gateway: Gateway,
}

/// Whether a gateway has the folder open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gateway {
    /// None has: nothing may be leased.
    #[default]
    Down,
    /// One has. It settles each attempt and writes the row at the end of the call, so that accounts may
    /// be ahead of the calls.
    Up,
}

/// What does not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The file is damaged; SQLite says how.
    Damaged(String),
    /// An amount below zero.
    Negative {
        /// In which table.
        table: &'static str,
        /// How many.
        rows: u64,
    },
    /// More is settled, in doubt and leased than the cap.
    OverCap {
        /// Of which account.
        account: AccountKey,
        /// Its budget's.
        cap: NanoUsd,
        /// The sum.
        spent: NanoUsd,
    },
    /// Something is leased, and nobody runs.
    Leased {
        /// Of which account.
        account: AccountKey,
        /// How much.
        leased: NanoUsd,
    },
    /// Holds in doubt are more than what is in doubt.
    DoubtBeyond {
        /// On which account.
        account: AccountKey,
        /// The sum of its holds in doubt.
        holds: NanoUsd,
        /// What it has in doubt.
        in_doubt: NanoUsd,
    },
    /// A hold in doubt is on an account that is not there.
    NoAccount {
        /// Which hold.
        doubt: DoubtId,
        /// The account's number.
        account: AccountId,
    },
    /// The calls of a day do not add up to its sums.
    Sums {
        /// Which day, in UTC.
        day: String,
        /// What its calls cost.
        calls: NanoUsd,
        /// What its sums say.
        usage: NanoUsd,
    },
    /// What is settled, over all windows, is not what the calls cost. More is settled where the remainder
    /// of an account was resolved; less is never right.
    Settled {
        /// Of which budget.
        budget: String,
        /// Whose.
        scope: String,
        /// On its accounts.
        settled: NanoUsd,
        /// What the calls cost.
        calls: NanoUsd,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// At most [`FINDINGS_MAX`].
    pub list: Vec<Finding>,
    /// There are more.
    pub cut: bool,
    /// Budgets that could not be held against their calls: what that takes has gone for want of room.
    pub unchecked: Vec<String>,
}

impl Store {
    /// Reads all of it; takes seconds for a gibibyte.
    ///
    /// # Errors
    ///
    /// [`StoreError`], where it cannot be read.
    pub fn check(&self, known: &Known) -> Result<Findings, StoreError> {
        // One moment: somebody may be writing.
        let moment = self.connection().unchecked_transaction()?;
        let gone = gone(&moment)?;
        let mut findings = Findings::default();
        file(&moment, &mut findings)?;
        accounts(&moment, known, &mut findings)?;
        doubts(&moment, &mut findings)?;
        sums(&moment, &gone, &mut findings)?;
        for (budget, scope) in &known.scopes {
            if gone.accounts.contains(budget) || (gone.runs && *scope == Scope::Run) {
                findings.unchecked.push(budget.clone());
            } else {
                settled(&moment, budget, *scope, &mut findings)?;
            }
        }
        Ok(findings)
    }
}

impl Findings {
    /// Whether all agrees, as far as it could be checked.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn push(&mut self, finding: Finding) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.cut = true;
        }
    }
}

fn file(moment: &Transaction<'_>, findings: &mut Findings) -> Result<(), StoreError> {
    let mut check = moment.prepare("PRAGMA quick_check(100)")?;
    let mut said = check.query([])?;
    while let Some(found) = said.next()? {
        let line: String = found.get(0)?;
        if line != "ok" {
            findings.push(Finding::Damaged(line));
        }
    }
    let signs = [
        ("accounts", "SELECT count(*) FROM accounts WHERE settled < 0 OR in_doubt < 0"),
        ("leases", "SELECT count(*) FROM leases WHERE leased < 0"),
        ("in_doubt", "SELECT count(*) FROM in_doubt WHERE amount < 0"),
        ("calls", "SELECT count(*) FROM calls WHERE cost < 0"),
        ("usage", "SELECT count(*) FROM usage WHERE cost < 0"),
    ];
    for (table, query) in signs {
        let rows: u32 = moment.query_row(query, [], |found| found.get(0))?;
        if rows > 0 {
            findings.push(Finding::Negative { table, rows: rows.into() });
        }
    }
    Ok(())
}

fn accounts(moment: &Transaction<'_>, known: &Known, findings: &mut Findings) -> Result<(), StoreError> {
    let explained = explained(moment)?;
    let mut statement = moment.prepare(
        "SELECT budget, scope, start_s, settled, in_doubt, \
         (SELECT coalesce(sum(leased), 0) FROM leases WHERE account = id), id FROM accounts ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(found) = rows.next()? {
        let account = account_key(found, 0)?;
        let [settled, in_doubt, leased] =
            [amount(found.get(3)?), amount(found.get(4)?), amount(found.get(5)?)];
        let spent = settled.saturating_add(in_doubt).saturating_add(leased);
        if let Some(cap) = known.caps.get(&*account.budget).copied().filter(|cap| spent > *cap) {
            findings.push(Finding::OverCap { account: account.clone(), cap, spent });
        }
        match known.gateway {
            Gateway::Down if leased > NanoUsd::ZERO => {
                findings.push(Finding::Leased { account: account.clone(), leased });
            }
            Gateway::Down | Gateway::Up => {}
        }
        let holds = explained.get(&AccountId(found.get(6)?)).copied().unwrap_or_default();
        if holds > in_doubt {
            findings.push(Finding::DoubtBeyond { account, holds, in_doubt });
        }
    }
    Ok(())
}

fn doubts(moment: &Transaction<'_>, findings: &mut Findings) -> Result<(), StoreError> {
    let mut is_there = moment.prepare("SELECT 1 FROM accounts WHERE id = ?1")?;
    let mut statement = moment.prepare("SELECT id, accounts FROM in_doubt ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(found) = rows.next()? {
        for account in ids_of(&found.get::<_, String>(1)?) {
            if !is_there.exists([account.0])? {
                findings.push(Finding::NoAccount { doubt: DoubtId(found.get(0)?), account });
            }
        }
    }
    Ok(())
}

/// Days of which calls have gone are left out.
fn sums(moment: &Transaction<'_>, gone: &Gone, findings: &mut Findings) -> Result<(), StoreError> {
    let from_ms = gone.calls_before_ms.map_or(0, |cut| cut.div_ceil(DAY_MS).saturating_mul(DAY_MS));
    let text = "WITH \
         of_calls AS (SELECT date(at_ms / 1000, 'unixepoch') AS day, sum(cost) AS cost FROM calls \
             WHERE at_ms >= ?1 GROUP BY 1), \
         of_usage AS (SELECT day, sum(cost) AS cost FROM usage \
             WHERE day >= date(?1 / 1000, 'unixepoch') GROUP BY 1) \
         SELECT day, coalesce(of_calls.cost, 0), coalesce(of_usage.cost, 0) \
         FROM of_calls FULL JOIN of_usage USING (day) \
         WHERE coalesce(of_calls.cost, 0) <> coalesce(of_usage.cost, 0) ORDER BY day";
    let mut statement = moment.prepare(text)?;
    let mut rows = statement.query([i64::try_from(from_ms).unwrap_or(i64::MAX)])?;
    while let Some(found) = rows.next()? {
        let (calls, usage) = (amount(found.get(1)?), amount(found.get(2)?));
        findings.push(Finding::Sums { day: found.get(0)?, calls, usage });
    }
    Ok(())
}

/// By the sums, which outlive the calls and agree with them.
fn settled(
    moment: &Connection,
    budget: &str,
    scope: Scope,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let column = match scope {
        Scope::All => "''",
        Scope::Key => "key",
        Scope::Team => "team",
        Scope::Run => "key || '/' || run",
        Scope::Model => "model",
    };
    let text = format!(
        "WITH \
         spent AS (SELECT {column} AS scope, sum(cost) AS cost FROM usage GROUP BY 1), \
         charged AS (SELECT scope, sum(settled) AS settled FROM accounts WHERE budget = ?1 GROUP BY 1) \
         SELECT scope, settled, coalesce(cost, 0) FROM charged LEFT JOIN spent USING (scope) \
         WHERE settled <> coalesce(cost, 0) ORDER BY scope"
    );
    let mut statement = moment.prepare(&text)?;
    let mut rows = statement.query([budget])?;
    while let Some(found) = rows.next()? {
        let (settled, calls) = (amount(found.get(1)?), amount(found.get(2)?));
        findings.push(Finding::Settled { budget: budget.into(), scope: found.get(0)?, settled, calls });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

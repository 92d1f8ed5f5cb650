//! What is in doubt, and what somebody says that it cost.
//!
//! A process that dies leaves holds behind of which nobody knows what became: each is listed with its
//! request, for somebody to look it up at the vendor. After a loss of power whole leases are in doubt,
//! more than holds explain: that is the remainder of an account.
//!
//! Both may be resolved while the gateway runs. It has read what is spent of an account when it leased
//! last, and that is now too high or too low there; but it never spends beyond what it has leased, and
//! it asks the store before it refuses and before it leases more. So it learns in time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension};
use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;

use crate::budget::{AccountKey, OF_THE_KEY, Scope, Scopes};
use crate::figures::Unresolved;
use crate::rows::Row;
use crate::store::{Batch, Store, StoreError, amount};
use crate::usage::account_key;

/// How a call ended that somebody has resolved.
pub const OUTCOME_RESOLVED: &str = "resolved";

/// What its cost goes by.
pub const BASIS_OPERATOR: &str = "operator";

/// Before the number of an account, it is what is in doubt there beyond its holds.
const REST: &str = "rest-";

/// The number of a hold in doubt. None is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoubtId(pub i64);

/// What somebody can resolve. As text it is `12`, or `rest-3` with the account's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InDoubt {
    /// A hold.
    Hold(DoubtId),
    /// What is in doubt on an account beyond its holds.
    Rest(AccountId),
}

/// Why a text names nothing in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a number as the list of what is in doubt has it, such as 12 or rest-3")]
pub struct NotInDoubt;

/// A hold in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its number.
    pub id: DoubtId,
    /// The request's id.
    pub request: String,
    /// The upstream and its model.
    pub attempt: String,
    /// What was held, on each of the accounts.
    pub amount: NanoUsd,
    /// When it was held, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The accounts.
    pub accounts: Vec<(AccountId, AccountKey)>,
}

/// What is in doubt on an account beyond its holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// Which.
    pub account: AccountId,
    /// Its budget, its scope and its window's start.
    pub key: AccountKey,
    /// How much.
    pub amount: NanoUsd,
}

/// What somebody says that it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// So much; a slip, if that is more than what is in doubt.
    Within(NanoUsd),
    /// So much, be it more than what is in doubt.
    Any(NanoUsd),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Resolved {
    /// The charge is settled, and nothing of it is in doubt any more.
    Done {
        /// What was in doubt.
        held: NanoUsd,
    },
    /// Nothing is done: the charge is more than what is in doubt, and that was not said to be meant.
    Beyond {
        /// What is in doubt.
        held: NanoUsd,
    },
    /// Nothing is done: it has been resolved before.
    Already,
    /// Nothing is done: there was never one of this number.
    Unknown,
}

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InDoubt::Hold(id) => write!(f, "{}", id.0),
            InDoubt::Rest(account) => write!(f, "{REST}{}", account.0),
        }
    }
}

impl FromStr for InDoubt {
    type Err = NotInDoubt;

    fn from_str(text: &str) -> Result<InDoubt, NotInDoubt> {
        let number = |text: &str| text.parse().map_err(|_| NotInDoubt);
        match text.strip_prefix(REST) {
            Some(account) => Ok(InDoubt::Rest(AccountId(number(account)?))),
            None => Ok(InDoubt::Hold(DoubtId(number(text)?))),
        }
    }
}

impl Resolved {
    /// One word for it, for the audit.
    pub fn outcome(self) -> &'static str {
        match self {
            Resolved::Done { .. } => "done",
            Resolved::Beyond { .. } => "beyond_held",
            Resolved::Already => "already_resolved",
            Resolved::Unknown => "unknown",
        }
    }
}

/// Writes what is to be known of it later, in the same transaction. On an error nothing is resolved.
pub type Audit<'a> = &'a dyn Fn(&Batch<'_>) -> Result<(), StoreError>;

impl Store {
    /// The holds in doubt, the oldest first, at most so many.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn doubts(&self, limit: u32) -> Result<Vec<Doubt>, StoreError> {
        let text =
            "SELECT id, request, attempt, amount, accounts, since_ms FROM in_doubt ORDER BY id LIMIT ?1";
        let mut statement = self.connection().prepare_cached(text)?;
        let found = statement.query_map([limit], |found| {
            let doubt = Doubt {
                id: DoubtId(found.get(0)?),
                request: found.get(1)?,
                attempt: found.get(2)?,
                amount: amount(found.get(3)?),
                since_ms: u64::try_from(found.get::<_, i64>(5)?).unwrap_or(0),
                accounts: Vec::new(),
            };
            Ok((doubt, found.get::<_, String>(4)?))
        })?;
        let mut doubts = Vec::new();
        for found in found {
            let (mut doubt, ids) = found?;
            doubt.accounts = keys_of(self.connection(), &ids)?;
            doubts.push(doubt);
        }
        Ok(doubts)
    }

    /// The accounts on which more is in doubt than holds explain.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn remainders(&self) -> Result<Vec<Remainder>, StoreError> {
        let explained = explained(self.connection())?;
        let text = "SELECT id, budget, scope, start_s, in_doubt FROM accounts WHERE in_doubt > 0 ORDER BY id";
        let mut statement = self.connection().prepare_cached(text)?;
        let found = statement.query_map([], |found| {
            let account = AccountId(found.get(0)?);
            let explained = explained.get(&account).copied().unwrap_or_default();
            let amount = amount(found.get(4)?).saturating_sub(explained);
            Ok(Remainder { account, key: account_key(found, 1)?, amount })
        })?;
        let some = |found: &Result<Remainder, _>| {
            found.as_ref().map_or(true, |remainder| remainder.amount > NanoUsd::ZERO)
        };
        Ok(found.filter(some).collect::<Result<_, _>>()?)
    }

    /// Says what this cost; see [`InDoubt`]. A hold's charge is settled on all of its accounts, and has a
    /// row in the ledger; a remainder's on its account alone.
    ///
    /// # Errors
    ///
    /// [`StoreError`], and those of `audit`; nothing is done then.
    pub fn resolve(
        &mut self,
        what: InDoubt,
        charge: Charge,
        scopes: &Scopes,
        audit: Audit<'_>,
    ) -> Result<Resolved, StoreError> {
        match what {
            InDoubt::Hold(id) => self.resolve_doubt(id, charge, scopes, audit),
            InDoubt::Rest(account) => self.resolve_rest(account, charge, audit),
        }
    }

    /// Says what a hold in doubt cost. The charge is settled on all of its accounts, and a row of the
    /// ledger with outcome `resolved` and basis `operator` has it, at the time when it was held. What
    /// the row says of key, team, run and model is read off the accounts, as far as their budgets'
    /// scopes are given; of upstream and model, off the attempt.
    ///
    /// # Errors
    ///
    /// [`StoreError`], and those of `audit`; nothing is done then.
    fn resolve_doubt(
        &mut self,
        id: DoubtId,
        charge: Charge,
        scopes: &Scopes,
        audit: Audit<'_>,
    ) -> Result<Resolved, StoreError> {
        let batch = self.batch()?;
        let Some(mut found) = batch.doubt(id)? else {
            return batch.was_given(id);
        };
        let held = NanoUsd::from_nanos(found.row.cost);
        let Some(charge) = charge.allowed(held)? else { return Ok(Resolved::Beyond { held }) };
        found.row.cost = charge.nanos();
        for (account, key) in keys_of(batch.connection(), &found.accounts)? {
            batch.resolve(account, held, charge)?;
            name(&mut found.row, &key, scopes);
        }
        batch.add_rows(&[found.row])?;
        batch.connection().execute("DELETE FROM in_doubt WHERE id = ?1", [id.0])?;
        audit(&batch)?;
        batch.commit()?;
        Ok(Resolved::Done { held })
    }

    /// Says what the remainder of an account cost. It is settled there. The ledger gets no row: the
    /// same dollar may be in the remainders of several accounts, and it would be counted for each.
    ///
    /// # Errors
    ///
    /// [`StoreError`], and those of `audit`; nothing is done then.
    fn resolve_rest(
        &mut self,
        account: AccountId,
        charge: Charge,
        audit: Audit<'_>,
    ) -> Result<Resolved, StoreError> {
        let batch = self.batch()?;
        let find = "SELECT in_doubt FROM accounts WHERE id = ?1";
        let in_doubt = batch.connection().query_row(find, [account.0], |found| found.get(0)).optional()?;
        let Some(in_doubt) = in_doubt.map(amount) else { return Ok(Resolved::Unknown) };
        let explained = explained(batch.connection())?.get(&account).copied().unwrap_or_default();
        let rest = in_doubt.saturating_sub(explained);
        if rest == NanoUsd::ZERO {
            return Ok(Resolved::Already);
        }
        let Some(charge) = charge.allowed(rest)? else { return Ok(Resolved::Beyond { held: rest }) };
        batch.resolve(account, rest, charge)?;
        audit(&batch)?;
        batch.commit()?;
        Ok(Resolved::Done { held: rest })
    }
}

impl Store {
    /// What is in doubt, in sum.
    pub(crate) fn in_doubt_now(&self) -> Result<Unresolved, StoreError> {
        let sums = "SELECT count(*), coalesce(sum(amount), 0) FROM in_doubt";
        let mut sums = self.connection().prepare_cached(sums)?;
        Ok(sums.query_row([], |found| {
            let count = u64::try_from(found.get::<_, i64>(0)?).unwrap_or(0);
            Ok(Unresolved { count, amount: amount(found.get(1)?) })
        })?)
    }
}

/// A hold in doubt, as it is resolved.
struct Open {
    /// Its cost is what was held, until somebody says what it was.
    row: Row,
    accounts: String,
}

impl Batch<'_> {
    fn doubt(&self, id: DoubtId) -> Result<Option<Open>, StoreError> {
        let text = "SELECT request, attempt, amount, accounts, since_ms FROM in_doubt WHERE id = ?1";
        let mut statement = self.connection().prepare_cached(text)?;
        let open = statement.query_row([id.0], |found| {
            let attempt: String = found.get(1)?;
            let (upstream, model) = attempt.split_once('/').unwrap_or((&attempt, ""));
            let row = Row {
                at_ms: u64::try_from(found.get::<_, i64>(4)?).unwrap_or(0),
                request: found.get::<_, String>(0)?.into(),
                upstream: upstream.into(),
                target_model: model.into(),
                cost: amount(found.get(2)?).nanos(),
                outcome: OUTCOME_RESOLVED.into(),
                basis: BASIS_OPERATOR.into(),
                ..Row::default()
            };
            Ok(Open { row, accounts: found.get(3)? })
        });
        Ok(open.optional()?)
    }

    /// The store gives numbers in order and none twice: one up to the last that is not there was there.
    fn was_given(&self, id: DoubtId) -> Result<Resolved, StoreError> {
        let text = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'in_doubt'";
        let last: i64 = self.connection().query_row(text, [], |found| found.get(0))?;
        Ok(if (1..=last).contains(&id.0) { Resolved::Already } else { Resolved::Unknown })
    }
}

impl Charge {
    /// The charge, if it may be settled for what is in doubt.
    fn allowed(self, held: NanoUsd) -> Result<Option<NanoUsd>, StoreError> {
        match self {
            Charge::Within(charge) => Ok((charge <= held).then_some(charge)),
            // A slip of somebody's finger is no vendor's word: it is not settled at the most.
            Charge::Any(charge) if charge > NanoUsd::CAP_MAX => Err(StoreError::Overflow),
            Charge::Any(charge) => Ok(Some(charge)),
        }
    }
}

/// What holds in doubt explain of each account.
pub(crate) fn explained(connection: &Connection) -> Result<BTreeMap<AccountId, NanoUsd>, StoreError> {
    let mut sums = BTreeMap::new();
    let mut statement = connection.prepare_cached("SELECT accounts, amount FROM in_doubt")?;
    let mut found = statement.query([])?;
    while let Some(found) = found.next()? {
        let held = amount(found.get(1)?);
        for id in ids_of(&found.get::<_, String>(0)?) {
            let sum: &mut NanoUsd = sums.entry(id).or_default();
            *sum = sum.saturating_add(held);
        }
    }
    Ok(sums)
}

/// Numbers of accounts, as a row in doubt has them.
pub(crate) fn ids_of(ids: &str) -> impl Iterator<Item = AccountId> {
    ids.split_ascii_whitespace().filter_map(|id| id.parse().ok().map(AccountId))
}

/// An account that is not there is left out: the checker finds it.
fn keys_of(connection: &Connection, ids: &str) -> Result<Vec<(AccountId, AccountKey)>, StoreError> {
    let text = "SELECT budget, scope, start_s FROM accounts WHERE id = ?1";
    let mut statement = connection.prepare_cached(text)?;
    let mut keys = Vec::new();
    for id in ids_of(ids) {
        let key = statement.query_row([id.0], |found| account_key(found, 0)).optional()?;
        keys.extend(key.map(|key| (id, key)));
    }
    Ok(keys)
}

/// Whose account it is, is whose call it was.
fn name(row: &mut Row, key: &AccountKey, scopes: &Scopes) {
    let name = String::from(&*key.scope);
    let own = key.budget.starts_with(OF_THE_KEY).then_some(&Scope::Key);
    match own.or_else(|| scopes.get(&*key.budget)) {
        Some(Scope::Key) => row.key = name.into(),
        Some(Scope::Team) => row.team = name.into(),
        Some(Scope::Run) => {
            let (of_key, run) = name.split_once('/').unwrap_or(("", &name));
            (row.key, row.run) = (of_key.into(), run.into());
        }
        Some(Scope::Model) => row.model = name.into(),
        Some(Scope::All) | None => {}
    }
}

#[cfg(test)]
mod tests;

//! What goes when it has ended long ago, whether or not there is room: a little at a time.
//!
//! Accounts whose windows have ended, tombstones of runs, keys that were revoked, and the oldest acts.
//! What they came to is in the sums of [`usage`](crate::usage). Money that can still matter never goes:
//! not an account with something leased or in doubt, nor the tombstone above one.

use rusqlite::params;

use crate::store::{Batch, Store, StoreError};

/// An account goes so long after its window has ended, in seconds: 400 days. After a year somebody may
/// still compare it with an invoice.
pub const WINDOW_KEPT_S: i64 = 400 * DAY_S;

/// A run's tombstone goes so long after the run has ended, in seconds: 30 days. From then on its name
/// is a new run's.
pub const RUN_KEPT_S: i64 = 30 * DAY_S;

/// A key that was revoked goes after this time, in seconds: a year. Its accounts that have no window end
/// with it.
pub const KEY_KEPT_S: i64 = 365 * DAY_S;

/// Acts of operators that are kept, the newest.
pub const ACTS_KEPT: u32 = 100_000;

const DAY_S: i64 = 24 * 60 * 60;

/// Rows of each kind that go in one step: some milliseconds.
const ROWS_MAX: u32 = 1000;

/// Of `meta`, before a budget's name: some of its accounts have gone.
pub(crate) const ACCOUNTS_GONE: &str = "accounts_gone ";

/// Of an account `id`: nobody can want it any more. The last one stays: its number would be given to
/// another, and the journal knows numbers.
const MAY_GO: &str = "accounts.in_doubt = 0 AND accounts.id < (SELECT max(id) FROM accounts) \
     AND NOT EXISTS (SELECT 1 FROM leases WHERE account = accounts.id)";

/// What one step took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Accounts.
    pub accounts: u64,
    /// Tombstones of runs.
    pub runs: u64,
    /// Keys.
    pub keys: u64,
    /// Acts.
    pub acts: u64,
}

impl Pruned {
    /// There may be more of one kind.
    pub(crate) fn is_cut(self) -> bool {
        let Pruned { accounts, runs, keys, acts } = self;
        [accounts, runs, keys, acts].iter().any(|count| *count >= u64::from(ROWS_MAX))
    }

    fn is_empty(self) -> bool {
        self == Pruned::default()
    }
}

/// Takes away a step's worth of what has ended long before `now_s`, seconds since the Unix epoch.
///
/// # Errors
///
/// [`StoreError`]; nothing has gone then.
pub fn prune(store: &mut Store, now_s: i64) -> Result<Pruned, StoreError> {
    if !has_any(store, now_s)? {
        return Ok(Pruned::default());
    }
    let batch = store.batch()?;
    let pruned = Pruned {
        accounts: end_windows(&batch, now_s.saturating_sub(WINDOW_KEPT_S))?,
        runs: forget_runs(&batch, now_s.saturating_sub(RUN_KEPT_S))?,
        keys: forget_keys(&batch, now_s.saturating_sub(KEY_KEPT_S), now_s)?,
        acts: forget_acts(&batch)?,
    };
    batch.commit()?;
    if !pruned.is_empty() {
        let Pruned { accounts, runs, keys, acts } = pruned;
        tracing::debug!(accounts, runs, keys, acts, "what has ended long ago has gone");
    }
    Ok(pruned)
}

/// Looked at first: a batch keeps others from writing.
fn has_any(store: &Store, now_s: i64) -> Result<bool, StoreError> {
    let text = "SELECT EXISTS (SELECT 1 FROM accounts WHERE ends_s < ?1) \
         OR EXISTS (SELECT 1 FROM runs WHERE ended_s < ?2) \
         OR EXISTS (SELECT 1 FROM keys WHERE revoked_ms < ?3) \
         OR coalesce((SELECT max(id) FROM audit) - (SELECT min(id) FROM audit), 0) >= ?4";
    let before = |kept_s: i64| now_s.saturating_sub(kept_s);
    let values = params![
        before(WINDOW_KEPT_S),
        before(RUN_KEPT_S),
        before(KEY_KEPT_S).saturating_mul(1000),
        ACTS_KEPT
    ];
    Ok(store.connection().prepare_cached(text)?.query_row(values, |found| found.get(0))?)
}

/// Accounts whose windows have ended before this time. Gives how many went.
pub(crate) fn end_windows(batch: &Batch<'_>, before_s: i64) -> Result<u64, StoreError> {
    let find = format!("SELECT id, budget FROM accounts WHERE ends_s < ?1 AND {MAY_GO} LIMIT ?2");
    remove_accounts(batch, &find, params![before_s, ROWS_MAX])
}

/// Runs that have ended before this time, with their accounts, where all of these may go.
fn forget_runs(batch: &Batch<'_>, before_s: i64) -> Result<u64, StoreError> {
    let find = format!(
        "SELECT scope, budget FROM runs WHERE ended_s < ?1 AND NOT EXISTS (SELECT 1 FROM accounts \
         WHERE accounts.budget = runs.budget AND accounts.scope = runs.scope AND NOT ({MAY_GO})) LIMIT ?2"
    );
    let connection = batch.connection();
    let mut find = connection.prepare_cached(&find)?;
    let names = |found: &rusqlite::Row<'_>| Ok((found.get::<_, String>(0)?, found.get::<_, String>(1)?));
    let runs = find.query_map(params![before_s, ROWS_MAX], names)?.collect::<Result<Vec<_>, _>>()?;
    for (scope, budget) in &runs {
        let of_it = "SELECT id, budget FROM accounts WHERE budget = ?1 AND scope = ?2";
        remove_accounts(batch, of_it, params![budget, scope])?;
        let remove = "DELETE FROM runs WHERE scope = ?1 AND budget = ?2";
        connection.prepare_cached(remove)?.execute([scope, budget])?;
    }
    Ok(runs.len() as u64)
}

/// Keys that were revoked before this time. Where theirs are accounts without an end, these end now.
fn forget_keys(batch: &Batch<'_>, before_s: i64, now_s: i64) -> Result<u64, StoreError> {
    let before_ms = before_s.saturating_mul(1000);
    let remove =
        "DELETE FROM keys WHERE id IN (SELECT id FROM keys WHERE revoked_ms < ?1 LIMIT ?2) RETURNING id";
    let connection = batch.connection();
    let mut remove = connection.prepare_cached(remove)?;
    let ids = remove.query_map(params![before_ms, ROWS_MAX], |found| found.get(0))?;
    let ids = ids.collect::<Result<Vec<String>, _>>()?;
    if !ids.is_empty() {
        // The scope of calls without a run ends in a slash.
        let end = "UPDATE accounts SET ends_s = ?1 WHERE ends_s IS NULL \
             AND rtrim(scope, '/') IN (SELECT value FROM json_each(?2))";
        let ids = serde_json::Value::from(ids.clone()).to_string();
        connection.prepare_cached(end)?.execute(params![now_s, ids])?;
    }
    Ok(ids.len() as u64)
}

fn forget_acts(batch: &Batch<'_>) -> Result<u64, StoreError> {
    let remove = "DELETE FROM audit WHERE id IN (SELECT id FROM audit \
         WHERE id <= (SELECT max(id) FROM audit) - ?1 ORDER BY id LIMIT ?2)";
    Ok(batch.connection().prepare_cached(remove)?.execute(params![ACTS_KEPT, ROWS_MAX])? as u64)
}

/// `find` gives numbers of accounts and their budgets. Gives how many went.
fn remove_accounts(
    batch: &Batch<'_>,
    find: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<u64, StoreError> {
    let connection = batch.connection();
    let found: Vec<(i64, String)> = connection
        .prepare_cached(find)?
        .query_map(values, |found| Ok((found.get(0)?, found.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut remove = connection.prepare_cached("DELETE FROM accounts WHERE id = ?1")?;
    let mut last = "";
    for (id, budget) in &found {
        remove.execute([id])?;
        if budget != last {
            batch.set_meta(&format!("{ACCOUNTS_GONE}{budget}"), "yes")?;
            last = budget;
        }
    }
    Ok(found.len() as u64)
}

#[cfg(test)]
mod tests;

//! The store: one SQLite database with one writer. Others may read.

use std::path::Path;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;
use sluice_core::vault::Vault;

use crate::budget::AccountKey;
use crate::layout::{LAYOUT, lay_out};

/// Who waits for another process that writes gives up after this time.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// The log is cut to this length where one that reads for long, or a large batch, has made it longer.
pub(crate) const WAL_BYTES: u32 = 8 * 1024 * 1024;

/// Statements that are kept ready: more than there are.
const STATEMENTS_KEPT: usize = 64;

/// The database, open.
pub struct Store {
    connection: Connection,
    /// Commits wait for the disk.
    waits: bool,
}

/// What is written together, or not at all.
pub struct Batch<'s>(Transaction<'s>);

/// An account's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// What is spent and leased.
    pub vault: Vault,
}

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else writes to it, for long.
    #[error("the database is locked by another process")]
    Locked,
    /// There is no room on the disk.
    #[error("the disk is full")]
    Full,
    /// It may not be written to.
    #[error("the database is read-only")]
    ReadOnly,
    /// A newer version has written it.
    #[error("the database has layout {found}; this version knows {LAYOUT}")]
    Newer {
        /// Its layout.
        found: i64,
    },
    /// An amount that nobody means, or an instant that the database cannot hold.
    #[error("an amount or an instant does not fit")]
    Overflow,
    /// Anything else.
    #[error("the database fails")]
    Broken(#[source] rusqlite::Error),
}

impl StoreError {
    /// One word for it, for labels.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::Locked => "locked",
            StoreError::Full => "full",
            StoreError::ReadOnly => "read_only",
            StoreError::Newer { .. } => "newer",
            StoreError::Overflow => "overflow",
            StoreError::Broken(_) => "broken",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked,
            Some(ErrorCode::DiskFull) => StoreError::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                StoreError::ReadOnly
            }
            _ => StoreError::Broken(error),
        }
    }
}

impl Store {
    /// Opens the database of this file; makes it, if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where it cannot be written, or was written by a newer version.
    pub fn open(file: &Path) -> Result<Store, StoreError> {
        let mut connection = Connection::open(file)?;
        connection.busy_timeout(BUSY_MAX)?;
        // Before the first page is written, or it has no effect; see `retention`.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
        // A commit that a power loss takes back is in the journal, or in doubt.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        lay_out(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        Ok(Store { connection, waits: false })
    }

    /// Opens it to be looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where there is none.
    pub fn open_to_read(file: &Path) -> Result<Store, StoreError> {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_MAX)?;
        Ok(Store { connection, waits: false })
    }

    /// Whether what is committed from here on survives a loss of power, for the price of waiting for
    /// the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) fn sync(&mut self, waits: bool) -> Result<(), StoreError> {
        if self.waits != waits {
            let mode = if waits { "full" } else { "normal" };
            self.connection.pragma_update(None, "synchronous", mode)?;
            self.waits = waits;
        }
        Ok(())
    }

    /// Begins to write; dropped before it is committed, nothing was written.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] while another process writes, and so on.
    pub fn batch(&mut self) -> Result<Batch<'_>, StoreError> {
        Ok(Batch(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?))
    }

    /// For queries.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Another number whenever another connection has written.
    pub(crate) fn data_version(&self) -> Result<i64, StoreError> {
        let mut query = self.connection.prepare_cached("PRAGMA data_version")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }
}

impl Batch<'_> {
    /// Makes it last.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then nothing was written.
    pub fn commit(self) -> Result<(), StoreError> {
        Ok(self.0.commit()?)
    }

    /// For statements of other modules.
    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }

    /// The account of this key; made, if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn account(&self, key: &AccountKey) -> Result<Account, StoreError> {
        let AccountKey { budget, scope, start_s } = key;
        let find = "SELECT id FROM accounts WHERE budget = ?1 AND scope = ?2 AND start_s = ?3";
        let mut find = self.0.prepare_cached(find)?;
        let found: Option<i64> =
            find.query_row(params![&**budget, &**scope, start_s], |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let make = "INSERT INTO accounts (budget, scope, start_s) VALUES (?1, ?2, ?3)";
                self.0.prepare_cached(make)?.insert(params![&**budget, &**scope, start_s])?
            }
        };
        self.account_of(AccountId(id))
    }

    /// An account by its number.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; also where there is none.
    pub fn account_of(&self, id: AccountId) -> Result<Account, StoreError> {
        let query = "SELECT settled, in_doubt, \
             (SELECT coalesce(sum(leased), 0) FROM leases WHERE account = id) FROM accounts WHERE id = ?1";
        let mut query = self.0.prepare_cached(query)?;
        let (settled, in_doubt, leased) = query.query_row([id.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let vault = Vault { settled: amount(settled), in_doubt: amount(in_doubt), leased: amount(leased) };
        Ok(Account { id, vault })
    }

    /// When the window of an account ends, in seconds since the Unix epoch; none: never.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn set_end(&self, id: AccountId, ends_s: Option<i64>) -> Result<(), StoreError> {
        let set = "UPDATE accounts SET ends_s = ?2 WHERE id = ?1 AND ends_s IS NOT ?2";
        self.0.prepare_cached(set)?.execute(params![id.0, ends_s])?;
        Ok(())
    }

    /// Leases so much more to this node.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn add_lease(&self, node: &str, id: AccountId, leased: NanoUsd) -> Result<(), StoreError> {
        if leased > NanoUsd::ZERO {
            let add = "INSERT INTO leases (account, node, leased) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET leased = min(leased + excluded.leased, 9223372036854775807)";
            self.0.prepare_cached(add)?.execute(params![id.0, node, number(leased)])?;
        }
        Ok(())
    }

    /// What attempts of this node cost.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn settle(&self, node: &str, id: AccountId, charge: NanoUsd) -> Result<(), StoreError> {
        // As `Vault::settle`, without reading first: this is done for each account of each batch.
        let add = "UPDATE accounts SET settled = min(settled, 9223372036854775807 - ?2) + ?2 WHERE id = ?1";
        self.0.prepare_cached(add)?.execute(params![id.0, number(charge)])?;
        let take = "UPDATE leases SET leased = max(leased - ?3, 0) WHERE account = ?1 AND node = ?2 \
             RETURNING leased";
        let mut take = self.0.prepare_cached(take)?;
        let values = params![id.0, node, number(charge)];
        let left: Option<i64> = take.query_row(values, |found| found.get(0)).optional()?;
        if left == Some(0) { self.set_lease(node, id, NanoUsd::ZERO) } else { Ok(()) }
    }

    /// This node gives a part of its lease back.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn give_back(&self, node: &str, id: AccountId, free: NanoUsd) -> Result<(), StoreError> {
        let lease = self.lease_of(node, id)?;
        self.set_lease(node, id, lease.saturating_sub(free))
    }

    /// This node has nothing of the account any more; of what it had leased, `open` is in doubt.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn orphan(&self, node: &str, id: AccountId, open: NanoUsd) -> Result<(), StoreError> {
        let lease = self.lease_of(node, id)?;
        let mut vault = self.account_of(id)?.vault;
        vault.orphan(lease, open);
        let set = "UPDATE accounts SET in_doubt = ?2 WHERE id = ?1";
        self.0.prepare_cached(set)?.execute(params![id.0, number(vault.in_doubt)])?;
        self.set_lease(node, id, NanoUsd::ZERO)
    }

    /// Somebody says what a hold in doubt cost.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn resolve(&self, id: AccountId, held: NanoUsd, charge: NanoUsd) -> Result<(), StoreError> {
        let mut vault = self.account_of(id)?.vault;
        vault.resolve(held, charge);
        let set = "UPDATE accounts SET settled = ?2, in_doubt = ?3 WHERE id = ?1";
        let (settled, in_doubt) = (number(vault.settled), number(vault.in_doubt));
        self.0.prepare_cached(set)?.execute(params![id.0, settled, in_doubt])?;
        Ok(())
    }

    /// All that this node has leased.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn leases(&self, node: &str) -> Result<Vec<(AccountId, NanoUsd)>, StoreError> {
        let mut query = self.0.prepare_cached("SELECT account, leased FROM leases WHERE node = ?1")?;
        let rows = query.query_map([node], |row| Ok((AccountId(row.get(0)?), amount(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What this node has leased of an account.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn lease_of(&self, node: &str, id: AccountId) -> Result<NanoUsd, StoreError> {
        let query = "SELECT leased FROM leases WHERE account = ?1 AND node = ?2";
        let mut query = self.0.prepare_cached(query)?;
        let leased: Option<i64> = query.query_row(params![id.0, node], |row| row.get(0)).optional()?;
        Ok(amount(leased.unwrap_or(0)))
    }

    fn set_lease(&self, node: &str, id: AccountId, lease: NanoUsd) -> Result<(), StoreError> {
        if lease == NanoUsd::ZERO {
            let remove = "DELETE FROM leases WHERE account = ?1 AND node = ?2";
            self.0.prepare_cached(remove)?.execute(params![id.0, node])?;
        } else {
            let set = "UPDATE leases SET leased = ?3 WHERE account = ?1 AND node = ?2";
            self.0.prepare_cached(set)?.execute(params![id.0, node, number(lease)])?;
        }
        Ok(())
    }

    /// A word that is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut query = self.0.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Keeps a word.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn set_meta(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let set =
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        self.0.prepare_cached(set)?.execute([name, value])?;
        Ok(())
    }

    /// Counts one more in a number that is kept, from 0 on.
    pub(crate) fn raise(&self, name: &str) -> Result<u64, StoreError> {
        let number = number_of(&self.0, name)?.checked_add(1).ok_or(StoreError::Overflow)?;
        self.set_meta(name, &number.to_string())?;
        Ok(number)
    }
}

/// A number of `meta`; 0 where there is none.
pub(crate) fn number_of(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    let query = "SELECT CAST(value AS INTEGER) FROM meta WHERE name = ?1";
    let mut query = connection.prepare_cached(query)?;
    let number: Option<i64> = query.query_row([name], |row| row.get(0)).optional()?;
    Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0))
}

/// As the database has it: only what fits is ever written.
pub(crate) fn amount(number: i64) -> NanoUsd {
    NanoUsd::from_nanos(u64::try_from(number).unwrap_or(0))
}

/// The largest number stands for what is larger: it is more than every cap, and what the database would
/// not take would be tried for ever.
pub(crate) fn number(amount: NanoUsd) -> i64 {
    i64::try_from(amount.nanos()).unwrap_or(i64::MAX)
}

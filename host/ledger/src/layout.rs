//! How a database is laid out: a new one, and one that an earlier version has written.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::store::StoreError;
use crate::{audit, keys, market, runs};

/// The layout that this version writes.
pub(crate) const LAYOUT: i64 = 3;

const TABLES: &str = include_str!("layout.sql");

/// From layout 1.
const TO_2: &str = include_str!("layout_2.sql");

/// From layout 2, and for a new one: nothing but new tables.
const TO_3: &str = include_str!("layout_3.sql");

/// Makes the tables that are not there.
///
/// # Errors
///
/// [`StoreError::Newer`] where a later version has made them, and so on; nothing has changed then.
pub(crate) fn lay_out(connection: &mut Connection) -> Result<(), StoreError> {
    let batch = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = batch.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => make(&batch, &[TABLES, audit::TABLES, keys::TABLES, runs::TABLES, TO_3, market::TABLES])?,
        1 => make(&batch, &[TO_2, runs::TABLES, TO_3, market::TABLES])?,
        2 => make(&batch, &[TO_3, market::TABLES])?,
        LAYOUT => {}
        found => return Err(StoreError::Newer { found }),
    }
    Ok(batch.commit()?)
}

fn make(batch: &Transaction<'_>, texts: &[&str]) -> Result<(), StoreError> {
    for text in texts {
        batch.execute_batch(text)?;
    }
    Ok(batch.pragma_update(None, "user_version", LAYOUT)?)
}

#[cfg(test)]
mod tests;

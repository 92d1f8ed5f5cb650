//! The ledger: its share of the disk.

use sluice_ledger::retention::{LIMIT_BYTES, LIMIT_BYTES_MIN};

use super::reader::Table;
use super::size;

/// What a share may be at most: 16 TiB, more than SQLite was ever asked for.
const RETENTION_BYTES_MAX: u64 = 16 << 40;

/// The `[ledger]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Bytes that the database and its log may have on the disk.
    pub(crate) retention_bytes: u64,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { retention_bytes: LIMIT_BYTES }
    }
}

pub(super) fn ledger(table: &Table<'_>) -> Ledger {
    let mut ledger = Ledger::default();
    if let Some(found) = table.get("retention") {
        ledger.retention_bytes =
            size::bytes(&found, LIMIT_BYTES_MIN..=RETENTION_BYTES_MAX).unwrap_or(ledger.retention_bytes);
    }
    table.finish();
    ledger
}

//! The ledger: its share of the disk.

use sluice_ledger::retention::{LIMIT_BYTES, LIMIT_BYTES_MIN};

use super::reader::{Found, Table};

/// What a share may be at most: 16 TiB, more than SQLite was ever asked for.
const RETENTION_BYTES_MAX: u64 = 16 << 40;

/// What may follow a number.
const UNITS: [(&str, u64); 3] = [("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

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
        ledger.retention_bytes = bytes(&found).unwrap_or(ledger.retention_bytes);
    }
    table.finish();
    ledger
}

/// A size with its unit.
fn bytes(found: &Found<'_>) -> Option<u64> {
    let text = found.text()?;
    let unit = UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?.trim_end(), bytes)));
    let bytes = unit.and_then(|(count, bytes)| count.parse::<u64>().ok()?.checked_mul(*bytes));
    match bytes.filter(|bytes| (LIMIT_BYTES_MIN..=RETENTION_BYTES_MAX).contains(bytes)) {
        Some(bytes) => Some(bytes),
        None => found.refuse("wanted a size from 64MiB to 16TiB, such as \"512MiB\" or \"4GiB\""),
    }
}

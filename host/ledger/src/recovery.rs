//! The start: what the process before had open is in doubt, what it had settled is settled.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use compact_str::CompactString;
use rusqlite::params;
use sluice_core::books::AccountId;
use sluice_core::money::NanoUsd;

use crate::journal::{Held, HoldId, Journal, Position, Record, Segment, segments};
use crate::rows::Row;
use crate::store::{Batch, Store, StoreError, number};

/// What of the journal is in the store.
const APPLIED: &str = "journal";

/// Which start of the machine has written the journal.
const BOOT: &str = "boot";

/// Whether the process before ended in order.
const CLEAN: &str = "clean";

/// The number of the next hold.
const NEXT_HOLD: &str = "next_hold";

/// The time of budgets that was reached.
const CLOCK: &str = "clock";

/// How a call ended whose process died between two of its attempts, or in a later one.
pub const INTERRUPTED: &str = "interrupted";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Settlements that were in the journal alone.
    pub settled: usize,
    /// Holds that nobody had ended.
    pub in_doubt: usize,
    /// What is in doubt in all, on the account with the most.
    pub amount: NanoUsd,
    /// The machine was off since, and the journal may lack its end: whole leases are in doubt.
    pub power_lost: bool,
    /// The number of the next hold.
    pub next_hold: u64,
    /// The time of budgets that was reached, in seconds since the Unix epoch; none at the first start.
    pub clock_s: Option<i64>,
}

/// Why there is no start.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The store fails.
    #[error("reading the accounts")]
    Store(#[from] StoreError),
    /// The journal cannot be read or begun.
    #[error("reading the journal in {folder}")]
    Journal {
        /// Where it is.
        folder: String,
        /// Why.
        source: io::Error,
    },
}

/// What the journal says that the store does not know.
#[derive(Default)]
struct Unapplied {
    open: BTreeMap<HoldId, Held>,
    charges: BTreeMap<AccountId, NanoUsd>,
    settled: usize,
    rows: Vec<Row>,
    /// Calls that had cost something and went on, by request; they may have ended since.
    underway: BTreeMap<CompactString, Row>,
    /// A segment that is not the last ends in the middle, or one is missing.
    broken: bool,
    /// The largest number of a hold.
    last: u64,
}

/// Takes up what the process before left: applies it to the store, and begins a new segment.
///
/// # Errors
///
/// [`RecoveryError`]; nothing is lost then, the next start tries again.
pub fn recover(
    store: &mut Store,
    folder: &Path,
    node: &str,
    boot: &str,
    now_ms: u64,
) -> Result<(Journal, Found), RecoveryError> {
    let failed = |source| RecoveryError::Journal { folder: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let batch = store.batch()?;
    let applied = position(&batch)?;
    let numbers = segments(folder).map_err(failed)?;
    let unapplied = read(folder, &numbers, applied).map_err(failed)?;
    let clean = batch.meta(CLEAN)?.as_deref() == Some("yes");
    let same_boot = batch.meta(BOOT)?.as_deref() == Some(boot);
    let leases = batch.leases(node)?;
    let power_lost = !leases.is_empty() && (unapplied.broken || (!clean && !same_boot));
    for (id, charge) in &unapplied.charges {
        if is_account(&batch, *id)? {
            batch.settle(node, *id, *charge)?;
        } else {
            // Accounts are on the disk before they are drawn on: this one was taken out by hand.
            tracing::error!(account = id.0, %charge, "the journal has a charge of an account that is gone");
        }
    }
    batch.add_rows(&unapplied.rows)?;
    batch.add_rows(&interrupted(&batch, &unapplied)?)?;
    let mut most = NanoUsd::ZERO;
    let mut leases: BTreeMap<AccountId, NanoUsd> = batch.leases(node)?.into_iter().collect();
    // A hold counts where nothing is leased any more, too: a debt has eaten it, or nothing is refused.
    for id in unapplied.open.values().flat_map(Held::accounts) {
        if is_account(&batch, id)? {
            leases.entry(id).or_default();
        }
    }
    for (id, lease) in leases {
        let of_it = unapplied.open.values().filter(|held| held.accounts().contains(&id));
        let open = of_it.fold(NanoUsd::ZERO, |sum, held| sum.saturating_add(held.amount()));
        let doubt = if power_lost { lease.max(open) } else { open };
        most = most.max(doubt);
        batch.orphan(node, id, doubt)?;
    }
    for held in unapplied.open.values() {
        add_doubt(&batch, held, now_ms)?;
    }
    let clock_s = clock_of(&batch)?;
    let segment = numbers.last().copied().unwrap_or(0).max(applied.segment) + 1;
    let stored: u64 = batch.meta(NEXT_HOLD)?.and_then(|text| text.parse().ok()).unwrap_or(1);
    let next_hold = stored.max(unapplied.last + 1);
    set_position(&batch, Position { segment, offset: 0 }, next_hold)?;
    batch.set_meta(BOOT, boot)?;
    batch.set_meta(CLEAN, "no")?;
    let journal = Journal::begin(folder, segment).map_err(failed)?;
    batch.commit()?;
    Journal::forget_before(folder, segment);
    let found = Found {
        clock_s,
        settled: unapplied.settled,
        in_doubt: unapplied.open.len(),
        amount: most,
        power_lost,
        next_hold,
    };
    Ok((journal, found))
}

/// From here on, all that the journal says is in the store.
///
/// # Errors
///
/// [`StoreError`].
pub(crate) fn set_position(batch: &Batch<'_>, position: Position, next_hold: u64) -> Result<(), StoreError> {
    batch.set_meta(APPLIED, &format!("{} {}", position.segment, position.offset))?;
    batch.set_meta(NEXT_HOLD, &next_hold.to_string())
}

/// Budgets have got to this time.
///
/// # Errors
///
/// [`StoreError`].
pub(crate) fn set_clock(batch: &Batch<'_>, seconds: i64) -> Result<(), StoreError> {
    batch.set_meta(CLOCK, &seconds.to_string())
}

/// The time that budgets have got to; none where there was none yet.
///
/// # Errors
///
/// [`StoreError`].
pub(crate) fn clock_of(batch: &Batch<'_>) -> Result<Option<i64>, StoreError> {
    Ok(batch.meta(CLOCK)?.and_then(|text| text.parse().ok()))
}

/// The process ends in order.
///
/// # Errors
///
/// [`StoreError`].
pub(crate) fn set_clean(batch: &Batch<'_>) -> Result<(), StoreError> {
    batch.set_meta(CLEAN, "yes")
}

/// After a loss of power the journal may know of more than the store.
fn is_account(batch: &Batch<'_>, id: AccountId) -> Result<bool, StoreError> {
    Ok(batch.connection().prepare_cached("SELECT 1 FROM accounts WHERE id = ?1")?.exists([id.0])?)
}

fn position(batch: &Batch<'_>) -> Result<Position, StoreError> {
    let text = batch.meta(APPLIED)?.unwrap_or_default();
    let (segment, offset) = text.split_once(' ').unwrap_or(("0", "0"));
    Ok(Position { segment: segment.parse().unwrap_or(0), offset: offset.parse().unwrap_or(0) })
}

/// Reads the segments from the one that is applied in part. Holds count from its beginning, what
/// became of them from behind the position.
fn read(folder: &Path, numbers: &[u64], applied: Position) -> io::Result<Unapplied> {
    let mut unapplied = Unapplied::default();
    let wanted: Vec<u64> = numbers.iter().copied().filter(|number| *number >= applied.segment).collect();
    unapplied.broken = applied.segment > 0 && wanted.first() != Some(&applied.segment);
    for (place, number) in wanted.iter().enumerate() {
        let segment = Segment::read(folder, *number)?;
        unapplied.broken |= segment.torn && place + 1 < wanted.len();
        for (offset, record) in segment.records {
            let is_new = Position { segment: *number, offset } > applied;
            unapplied.take(record, is_new);
        }
    }
    Ok(unapplied)
}

impl Unapplied {
    fn take(&mut self, record: Record, is_new: bool) {
        match record {
            Record::Held(held) => {
                self.last = self.last.max(held.id.0);
                self.open.insert(held.id, held);
            }
            Record::Settled { id, charge, row } => {
                let held = self.open.remove(&id);
                if !is_new {
                    return;
                }
                self.settled += 1;
                for account in held.iter().flat_map(Held::accounts) {
                    let sum = self.charges.entry(account).or_default();
                    *sum = sum.saturating_add(NanoUsd::from_nanos(charge));
                }
                self.rows.extend(row.map(|row| *row));
            }
            Record::Passed(row) if is_new => self.rows.push(*row),
            Record::Passed(_) => {}
            Record::Underway(row) => _ = self.underway.insert(row.request.clone(), *row),
        }
    }
}

/// Calls that were broken off after they had cost something, and of which the store knows nothing.
fn interrupted(batch: &Batch<'_>, unapplied: &Unapplied) -> Result<Vec<Row>, StoreError> {
    // What has ended since is in there by now, also where the journal did not take its end.
    let known = "SELECT 1 FROM calls WHERE at_ms = ?1 AND request = ?2";
    let mut known = batch.connection().prepare_cached(known)?;
    let mut rows = Vec::new();
    for row in unapplied.underway.values() {
        let at_ms = i64::try_from(row.at_ms).unwrap_or(i64::MAX);
        if !known.exists(params![at_ms, row.request.as_str()])? {
            rows.push(Row { outcome: INTERRUPTED.into(), ..row.clone() });
        }
    }
    Ok(rows)
}

fn add_doubt(batch: &Batch<'_>, held: &Held, now_ms: u64) -> Result<(), StoreError> {
    let accounts: Vec<String> = held.accounts.iter().map(i64::to_string).collect();
    let add =
        "INSERT INTO in_doubt (request, attempt, amount, accounts, since_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut add = batch.connection().prepare_cached(add)?;
    let since = i64::try_from(held.at_ms.min(now_ms)).unwrap_or(i64::MAX);
    add.execute(params![
        held.request.as_str(),
        held.attempt.as_str(),
        number(held.amount()),
        accounts.join(" "),
        since
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests;

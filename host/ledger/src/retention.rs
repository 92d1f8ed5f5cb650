//! What goes, where the database has used up its share of the disk: a little at a time, the oldest and
//! the least needed first.
//!
//! First calls go, the oldest day as a whole, and of the last day an eighth at a time. When none is
//! left, the sums of old days forget their runs. Last go accounts whose windows have ended, earlier than
//! they would go by themselves (see [`pruning`](crate::pruning)). Money that can still matter never goes:
//! not an account whose window is open or has no end, nor one with something leased or in doubt.
//!
//! A gibibyte is about 5.9 million calls with their index (181 bytes each), or 4.0 million where each
//! has a sum of its own besides.
//!
//! The file is made with `auto_vacuum = incremental`: it costs a thousandth of the room and no
//! measurable time of a batch, and a limit that was lowered takes effect. Without it pages are used
//! again and never given back. Where the limit stays, little is given back: rows that go make room for
//! those that come.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use crate::pruning::{ACCOUNTS_GONE, end_windows};
use crate::rows::{ADD_UP, DAY_MS};
use crate::store::{Batch, Store, StoreError, WAL_BYTES};

/// Bytes that the database and its log may have on the disk, unless the operator says otherwise.
pub const LIMIT_BYTES: u64 = 1024 * 1024 * 1024;

/// The least limit: below it the log has most of it.
pub const LIMIT_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// This part of the limit is for the log, and for what is written between two looks.
const RESERVE_PART: u64 = 8;

/// That is at least so much: with nobody in its way the log has half of it.
const RESERVE_BYTES_MIN: u64 = 2 * WAL_BYTES as u64;

/// Rows that go in one step: 3 to 8 ms, and 50 where the log is copied into the file meanwhile.
const ROWS_MAX: u32 = 2000;

/// Pages that are given back in one step: 5 ms, and 50 likewise.
const PAGES_MAX: u64 = 256;

/// Calls of the last day go in parts of what is there, but at least so many milliseconds at a time.
const CUT_MIN_MS: u64 = 60 * 1000;

/// An account goes so long after its window has ended, in seconds, where there is no room: 40 days. The
/// last month is still there.
const ACCOUNT_S: i64 = 40 * 24 * 60 * 60;

/// Calls before this time have gone, or are about to; milliseconds since the Unix epoch.
const CALLS_BEFORE: &str = "calls_before_ms";

/// Some sums have forgotten their runs.
const RUNS_GONE: &str = "runs_gone";

/// Keeps the database below its limit. Lives as long as the writer.
#[derive(Debug)]
pub struct Retention {
    /// Of the limit, for the tables.
    kept_bytes: u64,
    /// The rest of it.
    reserve_bytes: u64,
    /// Days before it have no runs left; the next look begins there.
    folded_to: String,
    reached: bool,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The database and its log, before the step.
    pub size: Size,
    /// Calls that went.
    pub calls: u64,
    /// Sums that forgot their run.
    pub runs: u64,
    /// Accounts that went.
    pub accounts: u64,
    /// Pages that the disk got back.
    pub pages: u64,
    /// For the first time since the start something has to go. To be said once.
    pub reached: bool,
    /// When to come again.
    pub next: Next,
}

/// When to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is below the limit: in some seconds.
    Enough,
    /// There is more to do: after the next batch.
    More,
    /// The log is too long, and cannot be cut while somebody reads: in some seconds. What is removed would
    /// make it longer.
    Reader,
    /// Nothing is left that may go: in some seconds, and somebody should know.
    Floor,
}

/// Bytes of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Its pages, the free ones among them.
    pub file_bytes: u64,
    /// Pages that the next rows take before the file grows.
    pub free_bytes: u64,
    /// The log beside it.
    pub wal_bytes: u64,
    page_bytes: u64,
}

/// What is no longer there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Calls from before this time, milliseconds since the Unix epoch.
    pub(crate) calls_before_ms: Option<u64>,
    /// Runs of some sums.
    pub(crate) runs: bool,
    /// Some accounts of these budgets.
    pub(crate) accounts: BTreeSet<String>,
}

// === impl Retention ===

impl Retention {
    /// A limit below [`LIMIT_BYTES_MIN`] is as much as that.
    pub fn new(limit_bytes: u64) -> Retention {
        let mut retention =
            Retention { kept_bytes: 0, reserve_bytes: 0, folded_to: String::new(), reached: false };
        let _ = retention.limit(limit_bytes);
        retention
    }

    /// The limit is another one, or the same. Gives whether it has changed: then what is reached is said
    /// anew.
    pub fn limit(&mut self, limit_bytes: u64) -> bool {
        let limit_bytes = limit_bytes.max(LIMIT_BYTES_MIN);
        let reserve_bytes = (limit_bytes / RESERVE_PART).max(RESERVE_BYTES_MIN);
        let before = (self.kept_bytes, self.reserve_bytes);
        (self.kept_bytes, self.reserve_bytes) = (limit_bytes - reserve_bytes, reserve_bytes);
        let changed = before != (self.kept_bytes, self.reserve_bytes);
        self.reached &= !changed;
        changed
    }

    /// Looks, and does a bounded piece of what there is to do: at most two thousand rows or
    /// 256 pages.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the next step tries again.
    pub fn step(&mut self, store: &mut Store, now_ms: u64) -> Result<Report, StoreError> {
        let size = Size::of(store.connection())?;
        let mut report =
            Report { size, calls: 0, runs: 0, accounts: 0, pages: 0, reached: false, next: Next::More };
        let kept = self.kept_bytes;
        let oldest = oldest(store.connection())?;
        let begun =
            gone(store.connection())?.calls_before_ms.filter(|cut| oldest.is_some_and(|at| at < *cut));
        if size.wal_bytes > self.reserve_bytes {
            // Where nobody reads, the next batch begins the log anew and cuts it.
            checkpoint(store.connection())?;
            report.next = Next::Reader;
        } else if let Some(cut) = begun {
            report.calls = remove_calls(store, cut)?;
        } else if size.file_bytes <= kept {
            report.next = Next::Enough;
        } else if size.used_bytes() <= kept {
            let pages = (size.file_bytes - kept).div_ceil(size.page_bytes.max(1)).min(PAGES_MAX);
            report.pages = give_back(store.connection(), pages)?;
            // A file that was made otherwise gives nothing back; what is free in it is used again.
            report.next = if report.pages == 0 { Next::Enough } else { Next::More };
        } else if let Some(oldest) = oldest {
            report.calls = remove_calls(store, cut(oldest, now_ms))?;
        } else {
            self.without_calls(store, now_ms, &mut report)?;
        }
        let something = report.calls + report.runs + report.accounts > 0 || report.next == Next::Floor;
        report.reached = something && !self.reached;
        self.reached |= something;
        Ok(report)
    }

    /// No call is left.
    fn without_calls(
        &mut self,
        store: &mut Store,
        now_ms: u64,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        report.runs = self.fold_runs(store, now_ms)?;
        if report.runs > 0 {
            return Ok(());
        }
        let batch = store.batch()?;
        let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        report.accounts = end_windows(&batch, now_s.saturating_sub(ACCOUNT_S))?;
        batch.commit()?;
        if report.accounts == 0 {
            report.next = Next::Floor;
        }
        Ok(())
    }

    /// Of the oldest day that has runs, not today. Gives how many sums there were.
    fn fold_runs(&mut self, store: &mut Store, now_ms: u64) -> Result<u64, StoreError> {
        let batch = store.batch()?;
        let find = "SELECT day FROM usage WHERE day >= ?1 AND day < date(?2, 'unixepoch') AND run <> '' \
             ORDER BY day LIMIT 1";
        let now_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let find = batch.connection().query_row(find, params![self.folded_to, now_s], |found| found.get(0));
        let Some(day): Option<String> = find.optional()? else {
            // From the beginning next time: what was in doubt for long adds to days long gone.
            self.folded_to.clear();
            return Ok(0);
        };
        let count = fold(&batch, &day)?;
        batch.set_meta(RUNS_GONE, "yes")?;
        batch.commit()?;
        self.folded_to = day;
        Ok(count)
    }
}

// === impl Size ===

impl Size {
    fn of(connection: &Connection) -> Result<Size, StoreError> {
        let number = |name| connection.query_row(name, [], |found| found.get::<_, u32>(0)).map(u64::from);
        let page_bytes = number("PRAGMA page_size")?;
        // A file that is not there has no length.
        let wal = connection.path().and_then(|file| std::fs::metadata(format!("{file}-wal")).ok());
        Ok(Size {
            file_bytes: number("PRAGMA page_count")? * page_bytes,
            free_bytes: number("PRAGMA freelist_count")? * page_bytes,
            wal_bytes: wal.map_or(0, |wal| wal.len()),
            page_bytes,
        })
    }

    /// All that is on the disk.
    pub fn all_bytes(self) -> u64 {
        self.file_bytes + self.wal_bytes
    }

    fn used_bytes(self) -> u64 {
        self.file_bytes.saturating_sub(self.free_bytes)
    }
}

/// What has gone, since the database was made.
pub(crate) fn gone(connection: &Connection) -> Result<Gone, StoreError> {
    let mut find = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let mut word = |name| find.query_row([name], |found| found.get::<_, String>(0)).optional();
    let budgets = "SELECT substr(name, length(?1) + 1) FROM meta WHERE substr(name, 1, length(?1)) = ?1";
    let mut budgets = connection.prepare_cached(budgets)?;
    let budgets = budgets.query_map([ACCOUNTS_GONE], |found| found.get(0))?;
    Ok(Gone {
        calls_before_ms: word(CALLS_BEFORE)?.and_then(|text| text.parse().ok()),
        runs: word(RUNS_GONE)?.is_some(),
        accounts: budgets.collect::<Result<_, _>>()?,
    })
}

/// The day of the oldest call; where that is today, a part of it. A clock that was wrong once makes
/// calls of the far future, which go last, or of the far past, which go first.
fn cut(oldest_ms: u64, now_ms: u64) -> u64 {
    let next_day = (oldest_ms / DAY_MS + 1).saturating_mul(DAY_MS);
    if next_day <= now_ms {
        return next_day;
    }
    oldest_ms.saturating_add((now_ms.saturating_sub(oldest_ms) / 8).max(CUT_MIN_MS))
}

fn oldest(connection: &Connection) -> Result<Option<u64>, StoreError> {
    let mut oldest = connection.prepare_cached("SELECT min(at_ms) FROM calls")?;
    let oldest: Option<i64> = oldest.query_row([], |found| found.get(0))?;
    Ok(oldest.map(|at| u64::try_from(at).unwrap_or(0)))
}

/// Some of the calls before this time, the oldest.
fn remove_calls(store: &mut Store, cut: u64) -> Result<u64, StoreError> {
    let batch = store.batch()?;
    batch.set_meta(CALLS_BEFORE, &cut.to_string())?;
    let remove = "DELETE FROM calls WHERE rowid IN \
         (SELECT rowid FROM calls WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)";
    let cut = i64::try_from(cut).unwrap_or(i64::MAX);
    let count = batch.connection().prepare_cached(remove)?.execute(params![cut, ROWS_MAX])?;
    batch.commit()?;
    Ok(count as u64)
}

/// Some sums of a day become sums without the run.
fn fold(batch: &Batch<'_>, day: &str) -> Result<u64, StoreError> {
    let last = "SELECT key, team, run, model, upstream FROM usage WHERE day = ?1 AND run <> '' \
         ORDER BY key, team, run, model, upstream LIMIT 1 OFFSET ?2";
    let last = batch.connection().query_row(last, params![day, ROWS_MAX - 1], |found| {
        let text = |column| found.get::<_, String>(column);
        Ok([text(0)?, text(1)?, text(2)?, text(3)?, text(4)?])
    });
    // Up to this one; without it, all that there are.
    let [key, team, run, model, upstream]: [String; 5] = last.optional()?.unwrap_or_default();
    let some = params![day, key, team, run, model, upstream];
    let which = "day = ?1 AND run <> '' AND \
         ((key, team, run, model, upstream) <= (?2, ?3, ?4, ?5, ?6) OR ?4 = '')";
    let add = format!(
        "INSERT INTO usage SELECT day, key, team, '', model, upstream, sum(calls), sum(input), sum(output), \
         sum(cost) FROM usage WHERE {which} GROUP BY key, team, model, upstream ON CONFLICT DO UPDATE SET {ADD_UP}"
    );
    batch.connection().prepare_cached(&add)?.execute(some)?;
    let remove = format!("DELETE FROM usage WHERE {which}");
    Ok(batch.connection().prepare_cached(&remove)?.execute(some)? as u64)
}

/// Gives the file's last pages back to the disk, at most so many. Gives how many there were.
fn give_back(connection: &Connection, pages: u64) -> Result<u64, StoreError> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    // Each row that is asked for is a page.
    let mut rows = statement.query([])?;
    let mut count = 0;
    while rows.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Without waiting for anybody.
fn checkpoint(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}

#[cfg(test)]
mod tests;

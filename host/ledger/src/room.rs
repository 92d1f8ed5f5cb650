//! When the writer looks at what may go, and what is said of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::pruning::{Pruned, prune};
use crate::retention::{Next, Report, Retention};
use crate::rules::Rules;
use crate::store::Store;

/// Between two looks at the room, where nothing is left to do and few calls come.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After so many rows there is a look in any case: 4 MB, and the smallest share's reserve has 8 beside the
/// log.
const ROWS_PER_LOOK: usize = 20_000;

/// Between two looks at what has ended long ago: all keys are looked at.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Looks after the room that the database takes.
pub(crate) struct Room {
    retention: Retention,
    looks_at: Instant,
    /// Since the last look.
    rows: usize,
    prunes_at: Instant,
    /// Nothing more may go, and the limit is passed; that is said.
    full: bool,
}

impl Room {
    pub(crate) fn new(now: Instant) -> Room {
        let retention = Retention::new(Rules::default().retention_bytes);
        Room { retention, looks_at: now + LOOK_EVERY, rows: 0, prunes_at: now + PRUNE_EVERY, full: false }
    }

    /// So many calls were written.
    pub(crate) fn grows_by(&mut self, rows: usize) {
        self.rows = self.rows.saturating_add(rows);
    }

    /// Takes away a little of what has ended long ago, and, where the share of the disk is used up, of
    /// what is oldest. `now_s` is the time of budgets. Gives when to come again.
    pub(crate) fn make(&mut self, store: &mut Store, rules: &Rules, now_s: i64, now: Instant) -> Next {
        if self.retention.limit(rules.retention_bytes) {
            self.looks_at = now;
        }
        let mut next = Next::Enough;
        if now >= self.looks_at || self.rows >= ROWS_PER_LOOK {
            self.rows = 0;
            // Where the store takes nothing, batches say so.
            if let Ok(report) = self.retention.step(store, unix_ms()) {
                self.tell(&report, rules.retention_bytes);
                next = report.next;
            }
            self.looks_at = if next == Next::More { now } else { now + LOOK_EVERY };
        }
        if now >= self.prunes_at {
            let is_cut = prune(store, now_s).is_ok_and(Pruned::is_cut);
            self.prunes_at = if is_cut { now } else { now + PRUNE_EVERY };
            next = if is_cut { Next::More } else { next };
        }
        next
    }

    fn tell(&mut self, report: &Report, limit_bytes: u64) {
        let bytes = report.size.all_bytes();
        if report.reached {
            tracing::warn!(
                bytes,
                limit_bytes,
                "the ledger has reached [ledger] retention: the oldest calls go"
            );
        }
        let full = report.next == Next::Floor;
        if full && !self.full {
            tracing::warn!(
                bytes,
                limit_bytes,
                "the ledger is larger than [ledger] retention, and nothing more of it may go"
            );
        }
        self.full = full;
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::LIMIT_BYTES_MIN;
    use crate::rows::Row;

    /// More than the least share; begun at `start`, when it was looked at.
    fn filled(folder: &std::path::Path, start: Instant) -> (Store, Rules, Room) {
        let mut store = Store::open(&folder.join("sluice.db")).unwrap();
        let rules = Rules { retention_bytes: LIMIT_BYTES_MIN, ..Rules::default() };
        let mut room = Room::new(start);
        assert_eq!(room.make(&mut store, &rules, 0, start), Next::Enough);
        let row = Row { at_ms: 1, request: "x".repeat(100_000).into(), ..Row::default() };
        for _ in 0..LIMIT_BYTES_MIN / 1_000_000 {
            let batch = store.batch().unwrap();
            batch.add_rows(std::iter::repeat_n(&row, 10)).unwrap();
            batch.commit().unwrap();
        }
        (store, rules, room)
    }

    /// A full minute of full load would be twice the least limit.
    #[test]
    fn a_share_that_is_used_up_is_seen_within_seconds() {
        let (folder, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let (mut store, rules, mut room) = filled(folder.path(), start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(room.make(&mut store, &rules, 0, after(1)), Next::Enough, "not with each batch");
        assert_eq!(room.make(&mut store, &rules, 0, after(5)), Next::More);
        let calls = "SELECT count(*) FROM calls";
        let left: i64 = store.connection().query_row(calls, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "one old day goes as a whole");
    }

    #[test]
    fn many_calls_are_looked_at_before() {
        let (folder, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let (mut store, rules, mut room) = filled(folder.path(), start);
        room.grows_by(ROWS_PER_LOOK - 1);
        assert_eq!(room.make(&mut store, &rules, 0, start), Next::Enough);
        room.grows_by(1);
        assert_eq!(room.make(&mut store, &rules, 0, start), Next::More);
    }
}

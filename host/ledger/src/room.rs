//! When the writer looks at what may go, and what is said of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::pruning::prune;
use crate::retention::{Next, Report, Retention};
use crate::rules::Rules;
use crate::store::Store;

/// Between two looks where nothing is left to do.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks after the room that the database takes.
pub(crate) struct Room {
    retention: Retention,
    looks_at: Instant,
    /// Nothing more may go, and the limit is passed; that is said.
    full: bool,
}

impl Room {
    pub(crate) fn new(now: Instant) -> Room {
        let retention = Retention::new(Rules::default().retention_bytes);
        Room { retention, looks_at: now + LOOK_EVERY, full: false }
    }

    /// Takes away a little of what has ended long ago, and, where the share of the disk is used up, of
    /// what is oldest. `now_s` is the time of budgets. Gives when to come again.
    pub(crate) fn make(&mut self, store: &mut Store, rules: &Rules, now_s: i64, now: Instant) -> Next {
        let changed = self.retention.limit(rules.retention_bytes);
        if now < self.looks_at && !changed {
            return Next::Enough;
        }
        // Where the store takes nothing, batches say so.
        let pruned = prune(store, now_s).unwrap_or_default();
        let step = self.retention.step(store, unix_ms());
        if let Ok(report) = &step {
            self.tell(report, rules.retention_bytes);
        }
        let next = step.map_or(Next::Enough, |report| report.next);
        let next = if pruned.is_cut() { Next::More } else { next };
        self.looks_at = if next == Next::More { now } else { now + LOOK_EVERY };
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

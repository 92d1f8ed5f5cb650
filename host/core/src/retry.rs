//! Whether and when a target is asked again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Before the first retry at most; doubled for each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// Before any retry at most.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A retry costs a thousand, a call brings a fifth of that: in the long run one retry for five calls.
const RETRY_COSTS: u32 = 1000;
const CALL_BRINGS: u32 = 200;

/// Saved up at most, and to begin with: ten retries.
const SAVED_MAX: u32 = 10 * RETRY_COSTS;

/// One upstream's leave to be asked again, so that retries do not finish off a vendor that fails
/// everybody. Races may lose a call's share, never grant a retry that was not paid.
#[derive(Debug)]
pub struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Budget {
        Budget(AtomicU32::new(SAVED_MAX))
    }
}

impl Budget {
    /// A call that is no retry.
    pub fn called(&self) {
        let saved = self.0.load(Ordering::Relaxed);
        if saved < SAVED_MAX {
            let _ = self.0.compare_exchange(
                saved,
                (saved + CALL_BRINGS).min(SAVED_MAX),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Pays for one retry, if it can.
    pub fn retry(&self) -> bool {
        let pay = |saved: u32| saved.checked_sub(RETRY_COSTS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

/// How long to wait before the n-th retry, from 0: full jitter, that is any time up to a bound that
/// doubles, so that callers who failed together do not come back together (Brooker, "Exponential
/// Backoff And Jitter", AWS Architecture Blog, 2015).
pub fn backoff(retry: u32, chance: u64) -> Duration {
    let bound = BACKOFF_FIRST.saturating_mul(1 << retry.min(10)).min(BACKOFF_MAX);
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(chance % (nanos + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_calls() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.retry()).count(), 10);
        let paid = (0..1000).filter(|_| {
            budget.called();
            budget.retry()
        });
        assert_eq!(paid.count(), 200);
    }

    #[test]
    fn waits_are_spread_up_to_a_bound_that_doubles() {
        for (retry, bound_ms) in [(0, 100), (1, 200), (4, 1600), (5, 2000), (60, 2000)] {
            let bound = Duration::from_millis(bound_ms);
            let chances = (0..10_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let waits: Vec<Duration> = chances.map(|chance| backoff(retry, chance)).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "{retry}");
            assert!(waits.iter().any(|wait| *wait < bound / 10), "{retry}");
            assert!(waits.iter().any(|wait| *wait > bound * 9 / 10), "{retry}");
        }
    }
}

//! What is remembered of a target's answers: moving averages that policies see.

use std::sync::atomic::{AtomicU32, Ordering};

/// A new sample counts for one part in so many: about the last ten answers matter.
const WINDOW: u32 = 8;

/// Success is told in thousandths.
const PERMILLE: u32 = 1000;

/// One target's averages. Updates may race: an average that misses one sample is still one.
#[derive(Debug)]
pub struct TargetStats {
    ttft_us: AtomicU32,
    total_us: AtomicU32,
    samples: AtomicU32,
    success_permille: AtomicU32,
    inflight: AtomicU32,
}

/// A call under way; counted until dropped.
#[derive(Debug)]
pub struct InFlight<S: AsRef<TargetStats>>(S);

/// The averages of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Time to the first byte of the answer, microseconds; 0 without samples.
    pub ttft_us: u32,
    /// Time to the end of the answer, microseconds; 0 without samples.
    pub total_us: u32,
    /// Answers seen, failed ones among them.
    pub samples: u32,
    /// Of a thousand recent answers so many were good.
    pub success_permille: u16,
    /// Calls under way.
    pub inflight: u32,
}

impl Default for TargetStats {
    fn default() -> TargetStats {
        TargetStats {
            ttft_us: AtomicU32::new(0),
            total_us: AtomicU32::new(0),
            samples: AtomicU32::new(0),
            success_permille: AtomicU32::new(PERMILLE),
            inflight: AtomicU32::new(0),
        }
    }
}

impl TargetStats {
    /// An answer came to its good end after these microseconds.
    pub fn succeeded(&self, ttft_us: u32, total_us: u32) {
        average(&self.ttft_us, ttft_us);
        average(&self.total_us, total_us);
        average_from(&self.success_permille, PERMILLE);
        self.samples.fetch_add(1, Ordering::Relaxed);
    }

    /// A call failed; its times say nothing.
    pub fn failed(&self) {
        average_from(&self.success_permille, 0);
        self.samples.fetch_add(1, Ordering::Relaxed);
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let load = |value: &AtomicU32| value.load(Ordering::Relaxed);
        Snapshot {
            ttft_us: load(&self.ttft_us),
            total_us: load(&self.total_us),
            samples: load(&self.samples),
            success_permille: u16::try_from(load(&self.success_permille)).unwrap_or(u16::MAX),
            inflight: load(&self.inflight),
        }
    }
}

impl<S: AsRef<TargetStats>> InFlight<S> {
    /// Counts a call until the guard is dropped.
    pub fn begin(stats: S) -> InFlight<S> {
        stats.as_ref().inflight.fetch_add(1, Ordering::Relaxed);
        InFlight(stats)
    }

    /// The averages of the target that is being called.
    pub fn stats(&self) -> &TargetStats {
        self.0.as_ref()
    }
}

impl<S: AsRef<TargetStats>> Drop for InFlight<S> {
    fn drop(&mut self) {
        self.0.as_ref().inflight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Moves an average towards a sample; the first sample is the average.
fn average(value: &AtomicU32, sample: u32) {
    match value.load(Ordering::Relaxed) {
        0 => value.store(sample.max(1), Ordering::Relaxed),
        _ => average_from(value, sample),
    }
}

fn average_from(value: &AtomicU32, sample: u32) {
    let (before, sample) = (u64::from(value.load(Ordering::Relaxed)), u64::from(sample));
    let sum = before * u64::from(WINDOW - 1) + sample;
    // Rounded towards the sample, or the last step would never be taken.
    let after = if sample > before { sum.div_ceil(u64::from(WINDOW)) } else { sum / u64::from(WINDOW) };
    value.store(u32::try_from(after).unwrap_or(u32::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn averages_move_towards_what_is_seen() {
        let stats = TargetStats::default();
        stats.succeeded(800, 1600);
        assert_eq!(stats.snapshot().ttft_us, 800);
        stats.succeeded(0, 1600);
        assert_eq!((stats.snapshot().ttft_us, stats.snapshot().total_us), (700, 1600));
        stats.failed();
        assert_eq!((stats.snapshot().samples, stats.snapshot().success_permille), (3, 875));
    }

    #[test]
    fn a_call_is_in_flight_until_its_guard_drops() {
        let stats = Arc::new(TargetStats::default());
        let first = InFlight::begin(Arc::clone(&stats));
        let second = InFlight::begin(Arc::clone(&stats));
        assert_eq!(stats.snapshot().inflight, 2);
        drop((first, second));
        assert_eq!(stats.snapshot().inflight, 0);
    }
}

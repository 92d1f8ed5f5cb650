//! What one request has taken of all that limit it, and what it gives back.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use smallvec::SmallVec;

use super::{Part, Shared, Told, lock};

/// What a request has taken: it gives its place back when dropped, and its estimate becomes the truth.
pub(crate) struct Permit {
    taken: SmallVec<[Taken; 4]>,
    estimate: u64,
    /// By attempts that have ended.
    used: AtomicU64,
    /// Attempts that may use tokens now.
    sent: AtomicU32,
    told: Told,
    /// Somebody works on the request, or has answered it.
    served: AtomicBool,
}

/// What was taken of one meter.
pub(super) struct Taken {
    pub(super) meter: Shared,
    pub(super) part: Part,
    pub(super) tokens: bool,
    /// Others draw on it too.
    pub(super) shared: bool,
}

impl Permit {
    pub(super) fn new(taken: SmallVec<[Taken; 4]>, estimate: u64, told: Told) -> Permit {
        let (used, sent, served) = (AtomicU64::new(0), AtomicU32::new(0), AtomicBool::new(false));
        Permit { taken, estimate, used, sent, told, served }
    }

    /// Somebody works on the request, or has answered it.
    pub(crate) fn serves(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// With what was taken in a second step.
    pub(crate) fn and(mut self, mut second: Permit) -> Permit {
        self.taken.append(&mut second.taken);
        self.estimate = second.estimate;
        self.told = self.told.and(second.told);
        self
    }

    /// An attempt may use tokens from here on.
    pub(crate) fn sent(&self) {
        self.serves();
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt that was sent has ended, and has used so many.
    pub(crate) fn ended(&self, tokens: u64) {
        // The closures always have an answer.
        let _ =
            self.sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| Some(sent.saturating_sub(1)));
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_add(tokens)));
    }

    /// The same, where nobody has said how many: as was expected, or as was seen where that is more.
    pub(crate) fn ended_unsaid(&self, seen: u64) {
        self.ended(self.estimate.max(seen));
    }

    /// Some of its limits count tokens.
    pub(crate) fn counts_tokens(&self) -> bool {
        self.taken.iter().any(|taken| taken.tokens)
    }

    /// What was left when it was given: of several limits, the tightest.
    pub(crate) fn told(&self) -> Told {
        self.told
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        // Of an attempt whose end nobody told.
        let unsaid = self.estimate.saturating_mul((*self.sent.get_mut()).into());
        let used = self.used.get_mut().saturating_add(unsaid);
        let served = *self.served.get_mut();
        for Taken { meter, part, tokens, shared } in &self.taken {
            let mut meter = lock(meter);
            // Who is refused has asked; but not of the model and the upstream, which others need.
            if let Some(requests) = meter.requests.as_mut().filter(|_| *shared && !served) {
                requests.amend(1, 0, now);
            }
            if let Some(bucket) = meter.tokens.as_mut().filter(|_| *tokens) {
                bucket.amend(self.estimate, used, now);
            }
            if part.has_entry() {
                meter.slots.give_back();
            }
        }
    }
}

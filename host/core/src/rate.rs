//! Whether a caller may go on now: so much a minute ([`Bucket`]), so many at once ([`Slots`]).
//!
//! A bucket is a token bucket: it holds at most one minute's worth, starts full and refills evenly.
//! The idea is Turner's leaky bucket ("New Directions in Communications", IEEE Communications
//! Magazine, October 1986), kept here as a meter: what counts is not what is left but what was used
//! and has not come back. So a debt is an ordinary level, and a changed limit keeps what was used. In
//! any time T, what is taken, less what amendments give back in it, is at most one minute's worth and
//! the refill of T.
//!
//! How many tokens a request takes is known only after the answer: it takes an estimate before, and
//! [`Bucket::amend`] makes it the truth after, below nothing if need be. The debt is kept because the
//! tokens were spent: if a bucket stopped at nothing, low estimates would let more than the limit pass,
//! minute after minute.
//!
//! The arithmetic is exact: levels are amounts times nanoseconds. Only answers are rounded: waits up,
//! amounts down.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Parts of one unit of an amount. Each nanosecond brings back as many parts as the limit has units.
const PARTS: u128 = 60_000_000_000;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How much passes in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests or tokens: whatever the bucket counts. It is also the most that passes at once.
    pub per_minute: NonZeroU64,
}

/// What one caller has used of one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    limit: Limit,
    /// Parts that were used and have not come back by `seen`. More than the limit is a debt.
    used: u128,
    /// The last moment that counted; an earlier one brings nothing back.
    seen: Instant,
}

/// Whether an amount passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Now.
    Now,
    /// Not before so long, to the nanosecond, and then only if nobody else takes any of it.
    /// Longer than a duration can be: [`Duration::MAX`].
    In(Duration),
    /// Not ever: it is more than a full bucket holds.
    Never,
}

/// Whether several amounts pass together, each from its own bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Together {
    /// All of them, now.
    Now,
    /// Not before so long; see [`Admission::In`].
    In {
        /// The bucket with the longest wait; the first, where several have it.
        index: usize,
        /// Its wait.
        wait: Duration,
    },
    /// Not ever, whatever the other buckets say.
    Never {
        /// The first bucket that is too small.
        index: usize,
    },
}

/// What a client is told of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The amount of a full bucket.
    pub limit: u64,
    /// The most that would pass now; 0 in debt.
    pub remaining: u64,
    /// Until it is full, to the nanosecond, if nobody takes any of it.
    /// Longer than a duration can be: [`Duration::MAX`].
    pub full_in: Duration,
}

/// Requests of one caller that may be under way at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    max: u32,
    out: u32,
}

/// No slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{out} of {max} requests are under way")]
pub struct Full {
    /// Slots that are out: more than `max` where that was lowered since.
    pub out: u32,
    /// Slots that there are.
    pub max: u32,
}

impl Limit {
    /// The parts of a full bucket. They fit: 64 bits of units and 36 of parts.
    fn parts(self) -> u128 {
        in_parts(self.per_minute.get())
    }

    /// How long it takes to bring so many parts back.
    fn time_for(self, parts: u128) -> Duration {
        let nanos = parts.div_ceil(u128::from(self.per_minute.get()));
        // The remainder is below a second's nanoseconds.
        let rest = (nanos % NANOS_PER_SECOND) as u32;
        u64::try_from(nanos / NANOS_PER_SECOND).map_or(Duration::MAX, |seconds| Duration::new(seconds, rest))
    }
}

impl Bucket {
    /// A full one.
    pub fn new(limit: Limit, now: Instant) -> Bucket {
        Bucket { limit, used: 0, seen: now }
    }

    /// What [`Bucket::take`] would answer.
    pub fn check(&self, amount: u64, now: Instant) -> Admission {
        if amount > self.limit.per_minute.get() {
            return Admission::Never;
        }
        let needed = self.used_at(now).saturating_add(in_parts(amount));
        match needed.saturating_sub(self.limit.parts()) {
            0 => Admission::Now,
            missing => Admission::In(self.wait(missing, now)),
        }
    }

    /// Takes the amount if it passes; else nothing changes. In debt nothing passes, not even 0.
    pub fn take(&mut self, amount: u64, now: Instant) -> Admission {
        let admission = self.check(amount, now);
        match admission {
            Admission::Now => self.book(amount, now),
            Admission::In(_) | Admission::Never => {}
        }
        admission
    }

    /// Makes what was taken as `reserved` the `actual` amount: what was too much comes back, but
    /// never above full; what was too little is taken, and is a debt where there is not so much.
    pub fn amend(&mut self, reserved: u64, actual: u64, now: Instant) {
        self.refill(now);
        self.used = self.used.saturating_sub(in_parts(reserved.saturating_sub(actual)));
        self.book(actual.saturating_sub(reserved), now);
    }

    /// Goes by another limit from now on. What was used stays used: of a larger limit so much more
    /// is left, and of a smaller one so much less, which may be a debt.
    pub fn set_limit(&mut self, limit: Limit, now: Instant) {
        // What came back until now came at the old rate.
        self.refill(now);
        self.limit = limit;
    }

    /// What the client is told.
    pub fn view(&self, now: Instant) -> View {
        let used = self.used_at(now);
        let left = self.limit.parts().saturating_sub(used) / PARTS;
        let limit = self.limit.per_minute.get();
        let full_in = if used == 0 { Duration::ZERO } else { self.wait(used, now) };
        // Never the maximum: what is left is no more than the limit, which has 64 bits.
        View { limit, remaining: u64::try_from(left).unwrap_or(u64::MAX), full_in }
    }

    fn used_at(&self, now: Instant) -> u128 {
        let nanos = now.saturating_duration_since(self.seen).as_nanos();
        // Saturated, it is more than any bucket can have used.
        self.used.saturating_sub(nanos.saturating_mul(u128::from(self.limit.per_minute.get())))
    }

    /// Until so many parts have come back; before `seen` none do.
    fn wait(&self, parts: u128, now: Instant) -> Duration {
        self.seen.saturating_duration_since(now).saturating_add(self.limit.time_for(parts))
    }

    fn refill(&mut self, now: Instant) {
        self.used = self.used_at(now);
        self.seen = self.seen.max(now);
    }

    /// A debt beyond 128 bits, some 300 million times the largest amount, stays at the largest level:
    /// nothing passes there, and no limit pays it off in less than five hundred years.
    fn book(&mut self, amount: u64, now: Instant) {
        self.refill(now);
        self.used = self.used.saturating_add(in_parts(amount));
    }
}

/// Takes each amount from its bucket if all of them pass; else no bucket changes. A wait is exact for
/// all of them together: the longest.
pub fn take_all(wanted: &mut [(&mut Bucket, u64)], now: Instant) -> Together {
    let mut together = Together::Now;
    for (index, (bucket, amount)) in wanted.iter().enumerate() {
        together = match (together, bucket.check(*amount, now)) {
            (_, Admission::Never) => return Together::Never { index },
            (Together::Now, Admission::In(wait)) => Together::In { index, wait },
            (Together::In { wait: longest, .. }, Admission::In(wait)) if wait > longest => {
                Together::In { index, wait }
            }
            (so_far, Admission::In(_) | Admission::Now) => so_far,
        };
    }
    match together {
        Together::Now => wanted.iter_mut().for_each(|(bucket, amount)| bucket.book(*amount, now)),
        Together::In { .. } | Together::Never { .. } => {}
    }
    together
}

impl Slots {
    /// All free. With a `max` of 0 none is ever given.
    pub fn new(max: u32) -> Slots {
        Slots { max, out: 0 }
    }

    /// Takes one; it is to be given back.
    ///
    /// # Errors
    ///
    /// [`Full`] when as many are out as there are.
    pub fn take(&mut self) -> Result<(), Full> {
        if self.out >= self.max {
            return Err(Full { out: self.out, max: self.max });
        }
        self.out += 1;
        Ok(())
    }

    /// Gives one back. Where none is out, nothing changes.
    pub fn give_back(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// Changes how many there are. Those that are out stay out, be they more.
    pub fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Slots that are out.
    pub fn out(&self) -> u32 {
        self.out
    }
}

fn in_parts(amount: u64) -> u128 {
    u128::from(amount) * PARTS
}

#[cfg(test)]
mod tests;

//! Whether a plugin's new version may stay: its first calls, held against the version it replaced.

use std::fmt;
use std::time::{Duration, Instant};

/// Calls after which a version has proven itself.
pub const CALLS: u64 = 200;

/// Time after which it has, however few its calls were.
pub const TIME: Duration = Duration::from_secs(60);

/// So many traps end it.
pub const TRAPS: u64 = 3;

/// Errors that it may make more often than the version before: 2 of 100 calls.
pub const ERRORS_MORE_PERCENT: u64 = 2;

/// So many times the CPU time per call end it.
pub const CPU_FACTOR: u32 = 4;

/// More CPU time that is never held against it: a version that takes 3 µs where the one before
/// took half of one does no harm.
pub const CPU_SLACK: Duration = Duration::from_micros(5);

/// Calls that both versions answered before their CPU times are compared.
pub const PAIRS_MIN: usize = 16;

/// Pairs that are remembered: the last ones.
const PAIRS_MAX: usize = 64;

/// Errors before rates are compared: fewer are no rate.
const ERRORS_MIN: u64 = 3;

/// Calls of the version before that make a rate; with fewer, a version is judged by itself.
const RATE_CALLS_MIN: u64 = 20;

/// Errors before it is.
const ALONE_ERRORS_MIN: u64 = 6;

/// Calls and how many of them went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All calls.
    pub calls: u64,
    /// Those that ended in an error of any kind but a trap.
    pub errors: u64,
}

/// How one call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// With a refusal, a breach of the contract, or a request that the vendor did not take.
    Error,
    /// With the end of its instance.
    Trap,
}

/// The books of one version on probation.
#[derive(Debug)]
pub struct Probation {
    since: Instant,
    before: Tally,
    now: Tally,
    traps: u64,
    /// CPU time per call, of this version and of the one before, for the same input.
    pairs: Vec<(Duration, Duration)>,
    paired: usize,
}

/// What the books say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough is known.
    Open,
    /// It stays.
    Passed,
    /// The version before comes back.
    Failed(Failure),
}

/// Why a version goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// [`TRAPS`] traps.
    Traps {
        /// In so many calls.
        calls: u64,
    },
    /// More errors than the version before, beyond what chance explains.
    Errors {
        /// Of this version.
        now: Tally,
        /// Of the one before.
        before: Tally,
    },
    /// [`CPU_FACTOR`] times the CPU time per call, medians over the same inputs.
    Slow {
        /// Of this version.
        now: Duration,
        /// Of the one before.
        before: Duration,
    },
}

impl Probation {
    /// Begins; `before` is what was counted of the version that is replaced.
    pub fn new(before: Tally, now: Instant) -> Probation {
        Probation {
            since: now,
            before,
            now: Tally::default(),
            traps: 0,
            pairs: Vec::with_capacity(PAIRS_MAX),
            paired: 0,
        }
    }

    /// Counts a call.
    pub fn called(&mut self, outcome: Outcome) {
        self.now.calls += 1;
        match outcome {
            Outcome::Good => {}
            Outcome::Error => self.now.errors += 1,
            Outcome::Trap => self.traps += 1,
        }
    }

    /// Notes the CPU time that the two versions took for the same input.
    pub fn paired(&mut self, now: Duration, before: Duration) {
        if self.pairs.len() < PAIRS_MAX {
            self.pairs.push((now, before));
        } else {
            self.pairs[self.paired % PAIRS_MAX] = (now, before);
        }
        self.paired += 1;
    }

    /// What the books say at this time.
    pub fn verdict(&self, now: Instant) -> Verdict {
        if let Some(failure) = self.failure() {
            return Verdict::Failed(failure);
        }
        let proven = self.now.calls >= CALLS || now.saturating_duration_since(self.since) >= TIME;
        if proven { Verdict::Passed } else { Verdict::Open }
    }

    fn failure(&self) -> Option<Failure> {
        if self.traps >= TRAPS {
            return Some(Failure::Traps { calls: self.now.calls });
        }
        if self.errs_more() {
            return Some(Failure::Errors { now: self.now, before: self.before });
        }
        let (now, before) = self.median_cpu()?;
        (now > before.saturating_mul(CPU_FACTOR) && now > before + CPU_SLACK)
            .then_some(Failure::Slow { now, before })
    }

    /// More than the old rate and two percent allow, and two standard deviations of what the
    /// old rate gives by chance in so few calls (binomial).
    fn errs_more(&self) -> bool {
        if self.now.errors < ERRORS_MIN {
            return false;
        }
        if self.before.calls < RATE_CALLS_MIN {
            // Nothing to hold it against: callers' own mistakes are errors too. One that fails at
            // every other call is bad by itself.
            return self.now.errors >= ALONE_ERRORS_MIN && self.now.errors * 2 > self.now.calls;
        }
        let rate = ratio(self.before.errors, self.before.calls);
        let calls = self.now.calls as f64;
        let chance = 2.0 * (calls * rate * (1.0 - rate)).sqrt();
        let allowed = calls * (rate + ratio(ERRORS_MORE_PERCENT, 100)) + chance;
        self.now.errors as f64 > allowed
    }

    /// Medians: a page fault or a busy neighbour in one call decides nothing.
    fn median_cpu(&self) -> Option<(Duration, Duration)> {
        if self.pairs.len() < PAIRS_MIN {
            return None;
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        let (now, before) = self.pairs.iter().copied().unzip();
        Some((median(now), median(before)))
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Traps { calls } => write!(f, "{TRAPS} traps in its first {calls} calls"),
            Failure::Errors { now, before } => write!(
                f,
                "{} errors in its first {} calls; the version before had {} in {}",
                now.errors, now.calls, before.errors, before.calls
            ),
            Failure::Slow { now, before } => {
                write!(f, "{now:?} of CPU time per call; the version before took {before:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    fn after(before: Tally, outcomes: &[(Outcome, u64)]) -> Verdict {
        let start = Instant::now();
        let mut probation = Probation::new(before, start);
        for (outcome, count) in outcomes {
            (0..*count).for_each(|_| probation.called(*outcome));
        }
        probation.verdict(start)
    }

    #[test]
    fn calls_or_time_prove_a_version() {
        assert_eq!(after(Tally::default(), &[(Outcome::Good, CALLS - 1)]), Verdict::Open);
        assert_eq!(after(Tally::default(), &[(Outcome::Good, CALLS)]), Verdict::Passed);
        let start = Instant::now();
        let probation = Probation::new(Tally::default(), start);
        assert_eq!(probation.verdict(start + TIME - MICROSECOND), Verdict::Open);
        assert_eq!(probation.verdict(start + TIME), Verdict::Passed);
    }

    #[test]
    fn the_third_trap_ends_it_even_in_the_last_call() {
        let good = (Outcome::Good, CALLS - 3);
        assert_eq!(after(Tally::default(), &[good, (Outcome::Trap, 2)]), Verdict::Open);
        let failed = after(Tally::default(), &[good, (Outcome::Trap, 3)]);
        assert_eq!(failed, Verdict::Failed(Failure::Traps { calls: CALLS }));
    }

    #[test]
    fn errors_are_held_against_those_of_the_version_before() {
        let hundred = |errors| [(Outcome::Good, 100 - errors), (Outcome::Error, errors)];
        let clean = Tally { calls: 1000, errors: 0 };
        assert_eq!(after(clean, &[(Outcome::Error, 2)]), Verdict::Open, "two are no rate");
        assert_eq!(after(clean, &hundred(2)), Verdict::Open);
        assert!(matches!(after(clean, &hundred(3)), Verdict::Failed(Failure::Errors { .. })));
        // Half of all calls failed before, too: clients that send nonsense are not its fault.
        let nonsense = Tally { calls: 1000, errors: 500 };
        assert_eq!(after(nonsense, &hundred(60)), Verdict::Open);
        assert!(matches!(after(nonsense, &hundred(70)), Verdict::Failed(Failure::Errors { .. })));
    }

    #[test]
    fn without_a_history_a_version_is_judged_by_itself() {
        let none = Tally { calls: RATE_CALLS_MIN - 1, errors: 0 };
        let of = |errors, good| after(none, &[(Outcome::Error, errors), (Outcome::Good, good)]);
        assert_eq!(of(3, 3), Verdict::Open, "three clients that sent nonsense");
        assert_eq!(of(ALONE_ERRORS_MIN - 1, 0), Verdict::Open);
        assert_eq!(of(ALONE_ERRORS_MIN, ALONE_ERRORS_MIN), Verdict::Open);
        assert!(matches!(of(ALONE_ERRORS_MIN + 1, ALONE_ERRORS_MIN), Verdict::Failed(_)));
        let some = Tally { calls: RATE_CALLS_MIN, errors: 0 };
        assert!(
            matches!(after(some, &[(Outcome::Error, 3), (Outcome::Good, 3)]), Verdict::Failed(_)),
            "the control"
        );
    }

    #[test]
    fn cpu_time_counts_by_its_factor_and_only_with_enough_pairs() {
        let start = Instant::now();
        let verdict = |pairs: usize, now: Duration, before: Duration| {
            let mut probation = Probation::new(Tally::default(), start);
            (0..pairs).for_each(|_| probation.paired(now, before));
            probation.verdict(start)
        };
        let (slow, before) = (41 * MICROSECOND, 10 * MICROSECOND);
        assert_eq!(verdict(PAIRS_MIN - 1, slow, before), Verdict::Open);
        assert_eq!(verdict(PAIRS_MIN, slow, before), Verdict::Failed(Failure::Slow { now: slow, before }));
        assert_eq!(verdict(PAIRS_MIN, 40 * MICROSECOND, before), Verdict::Open);
        assert_eq!(verdict(1000, 6 * MICROSECOND, MICROSECOND), Verdict::Open, "no harm done");
    }

    #[test]
    fn only_the_last_pairs_are_remembered() {
        let start = Instant::now();
        let mut probation = Probation::new(Tally::default(), start);
        (0..PAIRS_MAX).for_each(|_| probation.paired(100 * MICROSECOND, MICROSECOND));
        assert!(matches!(probation.verdict(start), Verdict::Failed(_)));
        (0..PAIRS_MAX).for_each(|_| probation.paired(MICROSECOND, MICROSECOND));
        assert_eq!(probation.verdict(start), Verdict::Open);
        assert_eq!(probation.pairs.len(), PAIRS_MAX);
    }

    proptest! {
        /// A version that errs exactly as often as the one before stays, whatever the rate.
        #[test]
        fn the_same_rate_never_fails(errors in 0_u64..=100, hundreds in 1_u64..20) {
            let before = Tally { calls: 100, errors };
            let outcomes = [(Outcome::Error, errors * hundreds), (Outcome::Good, (100 - errors) * hundreds)];
            prop_assert!(!matches!(after(before, &outcomes), Verdict::Failed(_)));
        }

        /// Pairs apart, one more error never saves a version that has failed.
        #[test]
        fn errors_never_help(errors in 0_u64..200, good in 0_u64..200, was in 0_u64..50) {
            let before = Tally { calls: 100, errors: was };
            let failed = |errors| {
                matches!(after(before, &[(Outcome::Good, good), (Outcome::Error, errors)]), Verdict::Failed(_))
            };
            prop_assert!(!failed(errors) || failed(errors + 1));
        }
    }
}

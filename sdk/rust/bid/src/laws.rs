//! What every strategy reckons with: a job's bounds, its cheapest target, shares of an amount.

use crate::{Book, Job, OptionCost};

/// The largest amount, nano-dollars; it also stands for a cost without a bound, and for an amount
/// that is not known.
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;

/// The highest bid that the host makes for a job, nano-dollars; where it is below `floor`, there is
/// none.
pub fn most(job: &Job) -> u64 {
    job.credit.min(job.ceiling)
}

/// The target that is expected to cost least; among equals the one that is less at worst.
pub fn cheapest(job: &Job) -> Option<&OptionCost> {
    job.targets.iter().min_by_key(|target| (target.expected, target.worst))
}

/// So many hundredths of an amount, rounded up: a share of a cost is never less than it is. What
/// does not fit is [`u64::MAX`], which no job pays.
pub fn per_hundred(amount: u64, hundredths: u64) -> u64 {
    let exact = u128::from(amount) * u128::from(hundredths);
    u64::try_from(exact.div_ceil(100)).unwrap_or(u64::MAX)
}

/// A book in which nothing has happened and nothing is capped, to begin a test with.
pub fn empty_book() -> Book {
    Book {
        open: 0,
        won: 0,
        spent: 0,
        earned: 0,
        balance: AMOUNT_MAX,
        day_loss_left: AMOUNT_MAX,
        wins: 0,
        losses: 0,
        recent: Vec::new(),
    }
}

/// A completion that pays `credit` nano-dollars and costs `expected`, twice that at worst, to begin
/// a test with: no floor, no ceiling but the credit.
pub fn sample_job(id: u32, credit: u64, expected: u64) -> Job {
    Job {
        id,
        kind: 1,
        credit,
        floor: 0,
        ceiling: AMOUNT_MAX,
        closes_in_ms: 5_000,
        reward_due_in_ms: 60_000,
        text_len: 0,
        needs: 0,
        prompt_tokens: 100,
        output_expected: 500,
        output_worst: 1_000,
        targets: vec![OptionCost { target: 0, expected, worst: expected.saturating_mul(2), offers: 0 }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up_and_never_wrap() {
        assert_eq!(per_hundred(1_000, 130), 1_300);
        assert_eq!(per_hundred(1, 101), 2);
        assert_eq!(per_hundred(0, 500), 0);
        assert_eq!(per_hundred(u64::MAX, 101), u64::MAX);
    }

    #[test]
    fn the_cheapest_is_by_expectation_and_then_at_worst() {
        let mut job = sample_job(0, 100, 10);
        let cost = |target, expected, worst| OptionCost { target, expected, worst, offers: 0 };
        job.targets = vec![cost(1, 9, 50), cost(2, 5, 90), cost(3, 5, 40)];
        assert_eq!(cheapest(&job).map(|target| target.target), Some(3));
        job.targets.clear();
        assert_eq!(cheapest(&job), None);
    }
}

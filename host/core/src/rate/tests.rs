//! The laws of buckets and slots, by hand at the boundaries and by chance in between.

mod properties;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn limit(per_minute: u64) -> Limit {
    Limit { per_minute: NonZeroU64::new(per_minute).unwrap() }
}

fn bucket(per_minute: u64, now: Instant) -> Bucket {
    Bucket::new(limit(per_minute), now)
}

#[test]
fn a_minutes_worth_passes_at_once_and_the_next_when_it_is_back() {
    let start = Instant::now();
    let mut bucket = bucket(60, start);
    for _ in 0..60 {
        assert_eq!(bucket.take(1, start), Admission::Now);
    }
    assert_eq!(bucket.take(1, start), Admission::In(SECOND));
    assert_eq!(bucket.take(1, start + SECOND - NANOSECOND), Admission::In(NANOSECOND));
    assert_eq!(bucket.take(1, start + SECOND), Admission::Now);
    assert_eq!(bucket.take(1, start + SECOND), Admission::In(SECOND));
}

#[test]
fn sevenths_of_a_minute_do_not_drift() {
    let start = Instant::now();
    let mut bucket = bucket(7, start);
    let mut now = start;
    assert_eq!(bucket.take(7, now), Admission::Now);
    for _ in 0..7000 {
        let Admission::In(wait) = bucket.check(1, now) else { panic!("it is empty") };
        now += wait;
        assert_eq!(bucket.take(1, now), Admission::Now);
    }
    assert_eq!(now - start, 60_000 * SECOND);
}

#[test]
fn what_is_more_than_a_full_bucket_never_passes() {
    let start = Instant::now();
    let mut bucket = bucket(100, start);
    assert_eq!(bucket.take(101, start), Admission::Never);
    assert_eq!(bucket.take(101, start + YEAR), Admission::Never);
    assert_eq!(bucket.take(100, start), Admission::Now, "as much as there is");
    assert_eq!(bucket.take(101, start), Admission::Never, "not even a wait when it is empty");
}

#[test]
fn a_debt_is_kept_and_nothing_passes_until_it_is_paid() {
    let start = Instant::now();
    let mut bucket = bucket(60, start);
    assert_eq!(bucket.take(10, start), Admission::Now);
    bucket.amend(10, 150, start);
    let in_debt = View { limit: 60, remaining: 0, full_in: 150 * SECOND };
    assert_eq!(bucket.view(start), in_debt);
    assert_eq!(bucket.take(1, start), Admission::In(91 * SECOND));
    assert_eq!(bucket.take(0, start), Admission::In(90 * SECOND), "not even nothing");
    assert_eq!(bucket.take(0, start + 90 * SECOND), Admission::Now);
    assert_eq!(bucket.take(1, start + 91 * SECOND), Admission::Now);
}

#[test]
fn what_was_too_much_comes_back_but_never_above_full() {
    let start = Instant::now();
    let mut bucket = bucket(60, start);
    assert_eq!(bucket.take(40, start), Admission::Now);
    bucket.amend(40, 15, start);
    assert_eq!(bucket.view(start).remaining, 45);
    // By then the refill has brought all of it back.
    bucket.amend(15, 0, start + 15 * SECOND);
    assert_eq!(bucket.view(start + 15 * SECOND), View { limit: 60, remaining: 60, full_in: Duration::ZERO });
    assert_eq!(bucket.take(60, start + 15 * SECOND), Admission::Now);
    assert_eq!(bucket.take(1, start + 15 * SECOND), Admission::In(SECOND));
}

#[test]
fn a_changed_limit_keeps_what_was_used() {
    let start = Instant::now();
    let mut bucket = bucket(600, start);
    assert_eq!(bucket.take(400, start), Admission::Now);
    let now = start + 10 * SECOND;
    // A hundred came back at the old rate.
    bucket.set_limit(limit(1200), now);
    assert_eq!(bucket.view(now), View { limit: 1200, remaining: 900, full_in: 15 * SECOND });
    bucket.set_limit(limit(60), now);
    assert_eq!(bucket.view(now), View { limit: 60, remaining: 0, full_in: 300 * SECOND });
    assert_eq!(bucket.take(1, now), Admission::In(241 * SECOND));
    assert_eq!(bucket.take(61, now), Admission::Never);
    bucket.set_limit(limit(600), now);
    assert_eq!(bucket.view(now).remaining, 300, "there and back hands out nothing");
    bucket.set_limit(limit(10), now + YEAR);
    assert_eq!(bucket.view(now + YEAR).remaining, 10, "full is full");
}

#[test]
fn an_earlier_moment_brings_nothing_back() {
    let start = Instant::now();
    let later = start + 30 * SECOND;
    let mut bucket = bucket(60, start);
    assert_eq!(bucket.take(60, later), Admission::Now);
    assert_eq!(bucket.take(1, start), Admission::In(31 * SECOND), "counted from the moment that asks");
    bucket.amend(0, 0, start);
    assert_eq!(bucket.view(later), View { limit: 60, remaining: 0, full_in: 60 * SECOND });
    assert_eq!(bucket.view(start).full_in, 90 * SECOND);
}

#[test]
fn the_largest_amounts_fit_and_the_deepest_debt_stays() {
    let start = Instant::now();
    let mut large = bucket(u64::MAX, start);
    assert_eq!(large.view(start).remaining, u64::MAX);
    assert_eq!(large.take(u64::MAX, start), Admission::Now);
    assert_eq!(large.take(u64::MAX, start), Admission::In(60 * SECOND));
    assert_eq!(large.view(start + 200 * YEAR).remaining, u64::MAX);

    let mut small = bucket(1, start);
    small.amend(0, u64::MAX, start);
    assert_eq!(small.take(1, start), Admission::In(Duration::MAX));
    assert_eq!(small.view(start + YEAR).full_in, Duration::MAX);

    large.used = u128::MAX - 1;
    large.amend(0, u64::MAX, start);
    assert_eq!(large.used, u128::MAX, "no wrap");
    assert!(matches!(large.take(0, start + 200 * YEAR), Admission::In(wait) if wait > 300 * YEAR));
}

#[test]
fn together_the_longest_wait_counts_and_never_counts_more() {
    let start = Instant::now();
    let (mut requests, mut tokens) = (bucket(60, start), bucket(6000, start));
    let mut ask =
        |amounts: (u64, u64)| take_all(&mut [(&mut requests, amounts.0), (&mut tokens, amounts.1)], start);
    assert_eq!(ask((1, 5500)), Together::Now);
    assert_eq!(ask((1, 600)), Together::In { index: 1, wait: SECOND });
    assert_eq!(ask((60, 600)), Together::In { index: 0, wait: SECOND }, "the first of equals");
    assert_eq!(ask((60, 700)), Together::In { index: 1, wait: 2 * SECOND });
    assert_eq!(ask((61, 700)), Together::Never { index: 0 });
    assert_eq!(ask((60, 6001)), Together::Never { index: 1 });
    assert_eq!(ask((59, 500)), Together::Now, "the refusals took nothing");
    assert_eq!(take_all(&mut [], start), Together::Now);
}

#[test]
fn slots_are_refused_when_all_are_out_and_whenever_the_limit_fell_below() {
    let mut slots = Slots::new(2);
    assert_eq!((slots.take(), slots.take()), (Ok(()), Ok(())));
    assert_eq!(slots.take(), Err(Full { out: 2, max: 2 }));
    slots.set_max(1);
    assert_eq!(slots.take().unwrap_err().to_string(), "2 of 1 requests are under way");
    slots.give_back();
    assert_eq!(slots.take(), Err(Full { out: 1, max: 1 }));
    slots.give_back();
    slots.give_back();
    assert_eq!(slots.out(), 0, "one too many changes nothing");
    assert_eq!(slots.take(), Ok(()));
    assert_eq!(Slots::new(0).take(), Err(Full { out: 0, max: 0 }));
}

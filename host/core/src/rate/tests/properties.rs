//! What holds of any history.

use super::*;

/// What may happen to a bucket.
#[derive(Clone, Copy, Debug)]
enum Event {
    Take(u64),
    /// All that it has.
    TakeRest,
    /// Reserved and actual amount.
    Amend(u64, u64),
    SetLimit(u64),
}

/// Small limits and ones that refill many units in a nanosecond.
fn any_limit() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..10, 1_u64..10_000, 1_u64..1_000_000_000_000_000]
}

fn any_amount() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..10, 0_u64..10_000, 0_u64..1_000_000_000_000_000]
}

/// Nanoseconds: some at once, some after hours.
fn any_nanos() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..3, 0_u64..1_000_000_000, 0_u64..100_000_000_000, 0_u64..10_000_000_000_000]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => any_amount().prop_map(Event::Take),
        3 => Just(Event::TakeRest),
        3 => (any_amount(), any_amount()).prop_map(|(reserved, actual)| Event::Amend(reserved, actual)),
        1 => any_limit().prop_map(Event::SetLimit),
    ]
}

/// Events and the moments at which they happen, in nanoseconds after the start.
fn any_history() -> impl Strategy<Value = Vec<(u64, Event)>> {
    prop::collection::vec((any_nanos(), any_event()), 0..30).prop_map(|steps| {
        let mut at = 0;
        let moments = steps.into_iter().map(|(nanos, event)| {
            at += nanos;
            (at, event)
        });
        moments.collect()
    })
}

/// The amount that a take got, if it was one that passed.
fn apply(bucket: &mut Bucket, event: Event, now: Instant) -> Option<u64> {
    let wanted = match event {
        Event::Take(amount) => amount,
        Event::TakeRest => bucket.view(now).remaining,
        Event::Amend(reserved, actual) => {
            bucket.amend(reserved, actual, now);
            return None;
        }
        Event::SetLimit(per_minute) => {
            bucket.set_limit(limit(per_minute), now);
            return None;
        }
    };
    (bucket.take(wanted, now) == Admission::Now).then_some(wanted)
}

/// A bucket with a history, and the moment of its last event.
fn lived(per_minute: u64, history: &[(u64, Event)], start: Instant) -> (Bucket, Instant) {
    let mut bucket = bucket(per_minute, start);
    for (at, event) in history {
        apply(&mut bucket, *event, start + Duration::from_nanos(*at));
    }
    let last = history.last().map_or(0, |(at, _)| *at);
    (bucket, start + Duration::from_nanos(last))
}

/// A moment after the last event, or before it.
fn beside(last: Instant, nanos: u64, is_behind: bool) -> Instant {
    let time = Duration::from_nanos(nanos);
    if is_behind { last - time } else { last + time }
}

/// The level counted the other way round: what is left, with a sign.
struct Model {
    left: i128,
    per_minute: i128,
    at: i128,
}

impl Model {
    const PARTS: i128 = 60_000_000_000;

    fn left_at(&self, at: i128) -> i128 {
        let refilled = self.left + (at - self.at).max(0) * self.per_minute;
        refilled.min(self.per_minute * Model::PARTS)
    }

    fn apply(&mut self, event: Event, at: i128) {
        let left = self.left_at(at);
        let (per_minute, next) = match event {
            Event::Take(amount) => (self.per_minute, left - i128::from(amount) * Model::PARTS),
            Event::TakeRest => (self.per_minute, if left < 0 { left - 1 } else { left % Model::PARTS }),
            Event::Amend(reserved, actual) => {
                let amended = left + (i128::from(reserved) - i128::from(actual)) * Model::PARTS;
                (self.per_minute, amended.min(self.per_minute * Model::PARTS))
            }
            Event::SetLimit(limit) => {
                (i128::from(limit), left + (i128::from(limit) - self.per_minute) * Model::PARTS)
            }
        };
        let is_take = matches!(event, Event::Take(_) | Event::TakeRest);
        if is_take && next < 0 {
            return;
        }
        *self = Model { left: next, per_minute, at: self.at.max(at) };
    }
}

proptest! {
    /// Whatever happens in whatever order, and be the clock of some behind: the level is the model's.
    #[test]
    fn no_debt_is_forgotten_and_nothing_is_handed_out_twice(
        per_minute in any_limit(),
        history in any_history(),
        behind in prop::collection::vec(any_nanos(), 30),
    ) {
        let start = Instant::now();
        let mut bucket = bucket(per_minute, start);
        let per_minute = i128::from(per_minute);
        let mut model = Model { left: per_minute * Model::PARTS, per_minute, at: 0 };
        for ((at, event), behind) in history.into_iter().zip(behind) {
            let at = if behind % 2 == 0 { at } else { at.saturating_sub(behind) };
            let now = start + Duration::from_nanos(at);
            apply(&mut bucket, event, now);
            model.apply(event, i128::from(at));
            let left = model.left_at(i128::from(at));
            prop_assert_eq!(bucket.limit.parts() as i128 - bucket.used_at(now) as i128, left);
            prop_assert_eq!(i128::from(bucket.view(now).remaining), left.max(0) / Model::PARTS);
        }
    }

    /// Between any two takes no more passed than one minute's worth and the refill of the time.
    #[test]
    fn no_interval_lets_more_pass_than_the_limit(
        per_minute in any_limit(),
        takes in prop::collection::vec((any_nanos(), prop::option::of(any_amount())), 1..30),
    ) {
        let start = Instant::now();
        let mut bucket = bucket(per_minute, start);
        let mut at = 0_u64;
        let mut passed = Vec::new();
        for (nanos, amount) in takes {
            at += nanos;
            let event = amount.map_or(Event::TakeRest, Event::Take);
            let got = apply(&mut bucket, event, start + Duration::from_nanos(at)).unwrap_or(0);
            passed.push((at, u128::from(got) * PARTS));
        }
        for (index, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (to, parts) in &passed[index..] {
                sum += parts;
                let refill = u128::from(to - from) * u128::from(per_minute);
                prop_assert!(sum <= u128::from(per_minute) * PARTS + refill);
            }
        }
    }

    /// With amendments and changed limits it is the truth that is bounded: what was taken, with what
    /// was amended until the last take. Only an overrun after the last take can be above it.
    #[test]
    fn no_interval_lets_more_pass_than_the_limit_by_actual_amounts(
        per_minute in any_limit(), history in any_history(),
    ) {
        let start = Instant::now();
        let mut bucket = bucket(per_minute, start);
        // After each event: its moment, the parts that it moved, the limit and whether a take passed.
        let mut events = Vec::new();
        for (at, event) in history {
            let now = start + Duration::from_nanos(at);
            let before = bucket.used_at(now) as i128;
            let passed = apply(&mut bucket, event, now).is_some();
            let moved = bucket.used_at(now) as i128 - before;
            events.push((at, moved, i128::from(bucket.limit.per_minute.get()), passed));
        }
        for first in 0..events.len() {
            let (mut moved, mut refill) = (0, 0);
            for index in first..events.len() {
                let (at, parts, per_minute, passed) = events[index];
                if index > first {
                    let (before, _, rate, _) = events[index - 1];
                    refill += i128::from(at - before) * rate;
                }
                moved += parts;
                prop_assert!(!passed || moved <= per_minute * Model::PARTS + refill);
            }
        }
    }

    /// Requests that reserve, and settle in any order: from the start on, the actual amounts of all that
    /// were let in are within the limit, but for what each used beyond its estimate.
    #[test]
    fn actual_amounts_are_within_the_limit_but_for_overruns(
        per_minute in any_limit(),
        // Reserved and actual in percent of what remains.
        requests in prop::collection::vec((any_nanos(), 0_u64..=100, 0_u64..=150, 0_usize..3), 1..30),
    ) {
        let start = Instant::now();
        let mut bucket = bucket(per_minute, start);
        let (mut at, mut under_way) = (0_u64, Vec::new());
        let (mut let_in, mut overruns) = (0, 0);
        for (nanos, reserved, actual, settled) in requests {
            at += nanos;
            let now = start + Duration::from_nanos(at);
            let remaining = bucket.view(now).remaining;
            let (reserved, actual) = (remaining * reserved / 100, remaining * actual / 100);
            if bucket.take(reserved, now) == Admission::Now {
                under_way.push((reserved, actual));
                let_in += u128::from(actual) * PARTS;
                overruns += u128::from(actual.saturating_sub(reserved)) * PARTS;
            }
            if settled < under_way.len() {
                let (reserved, actual) = under_way.swap_remove(settled);
                bucket.amend(reserved, actual, now);
            }
            let refill = u128::from(at) * u128::from(per_minute);
            prop_assert!(let_in <= u128::from(per_minute) * PARTS + refill + overruns);
        }
    }

    /// Together with what it took, an amendment is as if the actual amount had been taken.
    #[test]
    fn an_amendment_makes_the_estimate_the_truth(
        per_minute in any_limit(), history in any_history(), percent in 0_u64..=100, actual in any_amount(),
    ) {
        let (mut estimated, last) = lived(per_minute, &history, Instant::now());
        // Debts are paid first: nothing passes before.
        let now = match estimated.check(0, last) {
            Admission::In(wait) => last + wait,
            Admission::Now | Admission::Never => last,
        };
        let used = estimated.used_at(now);
        let reserved = estimated.view(now).remaining * percent / 100;
        prop_assert_eq!(estimated.take(reserved, now), Admission::Now);
        estimated.amend(reserved, actual, now);
        prop_assert_eq!(estimated.used, used + u128::from(actual) * PARTS);
    }

    /// Asked at the end of the wait it passes, a nanosecond before it does not.
    #[test]
    fn the_wait_is_exact(
        per_minute in any_limit(), history in any_history(), amount in any_amount(),
        nanos in any_nanos(), is_behind: bool,
    ) {
        let start = Instant::now() + YEAR;
        let (mut bucket, last) = lived(per_minute, &history, start);
        let now = beside(last, nanos, is_behind);
        let untouched = bucket.clone();
        match bucket.take(amount, now) {
            Admission::Now => {
                prop_assert!(amount <= untouched.view(now).remaining);
                prop_assert_eq!(bucket.used, untouched.used_at(now) + u128::from(amount) * PARTS);
            }
            Admission::In(wait) => {
                prop_assert_eq!(&bucket, &untouched);
                prop_assert_eq!(bucket.check(amount, now + wait - NANOSECOND), Admission::In(NANOSECOND));
                prop_assert_eq!(bucket.take(amount, now + wait), Admission::Now);
            }
            Admission::Never => {
                prop_assert_eq!(&bucket, &untouched);
                prop_assert!(amount > bucket.view(now).limit);
                prop_assert_eq!(bucket.check(amount, now + 1000 * YEAR), Admission::Never);
            }
        }
    }

    /// What remains passes, one more does not; and it is full when it says, a nanosecond before not.
    #[test]
    fn the_view_tells_what_a_take_would(
        per_minute in any_limit(), history in any_history(), nanos in any_nanos(), is_behind: bool,
    ) {
        let start = Instant::now() + YEAR;
        let (bucket, last) = lived(per_minute, &history, start);
        let now = beside(last, nanos, is_behind);
        let view = bucket.view(now);
        prop_assert!(view.remaining == 0 || bucket.check(view.remaining, now) == Admission::Now);
        prop_assert!(bucket.check(view.remaining + 1, now) != Admission::Now);
        prop_assert_eq!(bucket.check(view.limit, now + view.full_in), Admission::Now);
        if view.full_in > Duration::ZERO {
            let before = now + view.full_in - NANOSECOND;
            prop_assert_eq!(bucket.check(view.limit, before), Admission::In(NANOSECOND));
        }
    }

    /// Whoever turns the clock back gets what was there, and no more however often.
    #[test]
    fn time_that_goes_backwards_hands_out_nothing(
        per_minute in any_limit(),
        history in any_history(),
        behind in prop::collection::vec(any_nanos(), 1..10),
    ) {
        let start = Instant::now() + YEAR;
        let (mut bucket, last) = lived(per_minute, &history, start);
        bucket.amend(0, 0, last);
        let there = bucket.view(last).remaining;
        let mut got = 0;
        for nanos in behind {
            got += apply(&mut bucket, Event::TakeRest, last - Duration::from_nanos(nanos)).unwrap_or(0);
            bucket.amend(0, 0, last - Duration::from_nanos(nanos));
        }
        prop_assert_eq!(got, there);
        prop_assert_eq!(bucket.view(last).remaining, 0);
    }

    /// However often a bucket is refilled on the way, it ends as if it had been left alone.
    #[test]
    fn refills_do_not_drift(
        per_minute in any_limit(),
        history in any_history(),
        steps in prop::collection::vec(any_nanos(), 0..30),
    ) {
        let (bucket, mut now) = lived(per_minute, &history, Instant::now());
        let mut stepped = bucket.clone();
        for nanos in steps {
            now += Duration::from_nanos(nanos);
            stepped.amend(0, 0, now);
        }
        prop_assert_eq!(stepped.used_at(now), bucket.used_at(now));
    }

    /// All are taken or none is changed, and the answer is the worst of the answers of each.
    #[test]
    fn several_buckets_are_all_taken_or_none(
        parts in prop::collection::vec((any_limit(), any_history(), any_amount(), any::<bool>()), 0..4),
    ) {
        let start = Instant::now();
        let lives = parts.iter().map(|(per_minute, history, ..)| lived(*per_minute, history, start));
        let (mut buckets, moments): (Vec<Bucket>, Vec<Instant>) = lives.unzip();
        let now = moments.into_iter().max().unwrap_or(start);
        let amounts: Vec<u64> = buckets
            .iter()
            .zip(&parts)
            .map(|(bucket, (.., amount, rest))| if *rest { bucket.view(now).remaining } else { *amount })
            .collect();
        let untouched = buckets.clone();
        let answers: Vec<Admission> =
            buckets.iter().zip(&amounts).map(|(bucket, amount)| bucket.check(*amount, now)).collect();
        let mut ask = |now| {
            let mut wanted: Vec<_> = buckets.iter_mut().zip(amounts.iter().copied()).collect();
            take_all(&mut wanted, now)
        };
        match ask(now) {
            Together::Now => {
                prop_assert!(answers.iter().all(|answer| *answer == Admission::Now));
                for ((bucket, before), amount) in buckets.iter().zip(&untouched).zip(amounts) {
                    prop_assert_eq!(bucket.used, before.used_at(now) + u128::from(amount) * PARTS);
                }
            }
            Together::In { index, wait } => {
                prop_assert_eq!(answers[index], Admission::In(wait));
                prop_assert!(!answers.contains(&Admission::Never));
                let longer = |answer: &Admission| matches!(answer, Admission::In(other) if *other > wait);
                prop_assert!(!answers.iter().any(longer));
                prop_assert!(!answers[..index].contains(&Admission::In(wait)));
                prop_assert!(ask(now + wait - NANOSECOND) != Together::Now);
                prop_assert_eq!(&buckets, &untouched);
                let mut wanted: Vec<_> = buckets.iter_mut().zip(amounts).collect();
                prop_assert_eq!(take_all(&mut wanted, now + wait), Together::Now);
            }
            Together::Never { index } => {
                prop_assert_eq!(Some(index), answers.iter().position(|answer| *answer == Admission::Never));
                prop_assert_eq!(&buckets, &untouched);
            }
        }
    }

    /// As many are out as were taken and not given back, and none is given beyond the limit.
    #[test]
    fn slots_are_counted(steps in prop::collection::vec((0_u8..5, 0_u32..4), 0..100), max in 0_u32..4) {
        let (mut slots, mut max, mut out) = (Slots::new(max), max, 0);
        for (kind, number) in steps {
            match kind {
                0 | 1 => {
                    let taken = slots.take();
                    prop_assert_eq!(taken.is_ok(), out < max);
                    out += u32::from(taken.is_ok());
                }
                2 | 3 => {
                    slots.give_back();
                    out = out.max(1) - 1;
                }
                _ => {
                    slots.set_max(number);
                    max = number;
                }
            }
            prop_assert_eq!(slots.out(), out);
        }
    }
}

//! The laws of a breaker, by hand at the boundaries and by chance in between.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { failures: 5, open_for: Duration::from_secs(60), probes: 3 };

fn call(breaker: &mut Breaker, weight: Weight, now: Instant) -> Option<Standing> {
    let ticket = breaker.ask(now).expect("it lets calls pass");
    breaker.settle(ticket, weight, "test", now)
}

fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::new(LIMITS);
    for _ in 0..LIMITS.failures {
        call(&mut breaker, Weight::Bad, now);
    }
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_four_do_not() {
    let now = Instant::now();
    let mut breaker = Breaker::new(LIMITS);
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, Weight::Bad, now), None);
    }
    assert_eq!(call(&mut breaker, Weight::Good, now), None);
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, Weight::Bad, now), None);
    }
    let why = Why { rule: Rule::InARow(5), last: "test" };
    let until = now + LIMITS.open_for;
    assert_eq!(call(&mut breaker, Weight::Bad, now), Some(Standing::Open { until, why }));
    assert!(!breaker.admits(now) && breaker.ask(now).is_none());
    assert_eq!(why.to_string(), "5 failures in a row, the last by test");
}

#[test]
fn half_of_twenty_open_it_though_never_five_in_a_row() {
    let now = Instant::now();
    let mut breaker = Breaker::new(LIMITS);
    let weights = [Weight::Good, Weight::Bad].into_iter().cycle();
    let opened: Vec<usize> = (1..=20)
        .zip(weights)
        .filter_map(|(number, weight)| call(&mut breaker, weight, now).map(|_| number))
        .collect();
    assert_eq!(opened, [20]);
}

#[test]
fn what_is_nobodys_fault_counts_for_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::new(LIMITS);
    for _ in 0..200 {
        assert_eq!(call(&mut breaker, Weight::Neither, now), None);
    }
    assert_eq!(breaker.standing(), Standing::Closed);
}

#[test]
fn at_most_three_probes_and_two_successes_close_it() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + LIMITS.open_for;
    assert!(breaker.ask(later - Duration::from_nanos(1)).is_none());
    let mut probes: Vec<Ticket> = (0..10).filter_map(|_| breaker.ask(later)).collect();
    assert_eq!(probes.len(), 3);
    let mut settle = |weight| breaker.settle(probes.remove(0), weight, "test", later);
    assert_eq!(settle(Weight::Neither), None);
    assert_eq!(settle(Weight::Good), None, "one is not enough");
    assert_eq!(settle(Weight::Good), Some(Standing::Closed));
}

#[test]
fn one_failed_probe_opens_it_again() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + LIMITS.open_for;
    assert_eq!(call(&mut breaker, Weight::Good, later), None);
    let why = Why { rule: Rule::Probe, last: "test" };
    let until = later + LIMITS.open_for;
    assert_eq!(call(&mut breaker, Weight::Bad, later), Some(Standing::Open { until, why }));
}

#[test]
fn an_answer_from_before_decides_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::new(LIMITS);
    let early = breaker.ask(now).expect("closed");
    let mut late: Vec<Ticket> = (0..4).map(|_| breaker.ask(now).expect("closed")).collect();
    for _ in 0..LIMITS.failures {
        call(&mut breaker, Weight::Bad, now);
    }
    let open = breaker.standing();
    assert_eq!(breaker.settle(early, Weight::Good, "test", now), None);
    assert_eq!(breaker.standing(), open);
    breaker.reset();
    for _ in 0..4 {
        let ticket = late.pop().expect("four were taken");
        assert_eq!(breaker.settle(ticket, Weight::Bad, "test", now), None);
    }
    assert_eq!(call(&mut breaker, Weight::Bad, now), None, "the four of before do not count");
}

proptest! {
    /// In any order of calls and answers: open means no call, half-open at most so many; what was
    /// taken before a change never changes anything.
    #[test]
    fn never_more_than_its_probes(steps in prop::collection::vec((0_u8..4, 0_usize..8, 0_u64..40), 1..200)) {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        let mut held: Vec<(u64, Ticket)> = Vec::new();
        for (step, which, seconds) in steps {
            now += Duration::from_secs(seconds);
            if step == 0 {
                let admits = breaker.admits(now);
                let ticket = breaker.ask(now);
                prop_assert_eq!(ticket.is_some(), admits);
                held.extend(ticket.map(|ticket| (ticket.epoch, ticket)));
            } else if !held.is_empty() {
                let (epoch, ticket) = held.swap_remove(which % held.len());
                let weight = [Weight::Good, Weight::Bad, Weight::Neither][usize::from(step) - 1];
                let (before, current) = (breaker.standing(), epoch == breaker.epoch);
                let changed = breaker.settle(ticket, weight, "test", now).is_some();
                prop_assert!(current || (!changed && breaker.standing() == before));
            }
            if let Standing::HalfOpen { .. } = breaker.standing() {
                let epoch = breaker.epoch;
                let probes = held.iter().filter(|(taken, _)| *taken == epoch).count();
                prop_assert!(probes <= LIMITS.probes as usize);
            }
        }
    }
}

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

/// A breaker that is half-open, with its three probes under way.
fn probing(now: Instant) -> (Breaker, [Ticket; 3]) {
    let mut breaker = opened(now - LIMITS.open_for);
    let probes = [(); 3].map(|()| breaker.ask(now).expect("three probes"));
    (breaker, probes)
}

#[test]
fn answers_that_begin_close_it_though_none_has_ended() {
    let now = Instant::now();
    let (mut breaker, [mut first, mut second, mut third]) = probing(now);
    assert!(!breaker.admits(now));
    assert_eq!(breaker.begun(&mut first), None, "one is not enough");
    assert_eq!(breaker.begun(&mut first), None, "it counts once");
    let mut fourth = breaker.ask(now).expect("the first has freed its place");
    assert!(breaker.ask(now).is_none(), "it has freed one place");
    assert_eq!(breaker.begun(&mut second), Some(Standing::Closed));
    for late in [&mut third, &mut fourth] {
        assert_eq!(breaker.begun(late), None);
    }
    assert_eq!(breaker.settle(third, Weight::Bad, "test", now), None);
    assert_eq!(breaker.settle(first, Weight::Good, "test", now), None);
    assert_eq!(breaker.settle(second, Weight::Neither, "test", now), None);
    assert_eq!(breaker.standing(), Standing::Closed);
}

#[test]
fn a_probe_that_has_begun_counts_once_and_frees_one_place() {
    for weight in [Weight::Good, Weight::Neither] {
        let now = Instant::now();
        let (mut breaker, [mut first, second, _third]) = probing(now);
        assert_eq!(breaker.begun(&mut first), None);
        let _fourth = breaker.ask(now).expect("the first has freed its place");
        assert_eq!(breaker.settle(first, weight, "test", now), None);
        assert!(!breaker.admits(now), "not a second one");
        assert_eq!(breaker.settle(second, Weight::Good, "test", now), Some(Standing::Closed));
    }
}

#[test]
fn a_probe_that_begins_and_fails_opens_it() {
    let now = Instant::now();
    let (mut breaker, [mut first, mut second, _third]) = probing(now);
    assert_eq!(breaker.begun(&mut first), None);
    let (until, why) = (now + LIMITS.open_for, Why { rule: Rule::Probe, last: "test" });
    assert_eq!(breaker.settle(first, Weight::Bad, "test", now), Some(Standing::Open { until, why }));
    assert_eq!(breaker.begun(&mut second), None);
    assert_eq!(breaker.settle(second, Weight::Good, "test", now), None);
    assert_eq!(breaker.standing(), Standing::Open { until, why });
}

#[test]
fn a_probe_that_fails_once_it_has_closed_is_a_call_that_fails() {
    let now = Instant::now();
    let (mut breaker, [mut first, mut second, _third]) = probing(now);
    assert_eq!(breaker.begun(&mut first), None);
    assert_eq!(breaker.begun(&mut second), Some(Standing::Closed));
    for _ in 0..3 {
        assert_eq!(call(&mut breaker, Weight::Bad, now), None);
    }
    assert_eq!(breaker.settle(first, Weight::Bad, "test", now), None);
    let (until, why) = (now + LIMITS.open_for, Why { rule: Rule::InARow(5), last: "test" });
    assert_eq!(breaker.settle(second, Weight::Bad, "test", now), Some(Standing::Open { until, why }));
}

#[test]
fn a_probe_of_an_earlier_half_open_time_decides_nothing() {
    let now = Instant::now();
    // The operator closed it, not its probes.
    let (mut breaker, [mut first, ..]) = probing(now);
    assert_eq!(breaker.begun(&mut first), None);
    breaker.reset();
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, Weight::Bad, now), None);
    }
    assert_eq!(breaker.settle(first, Weight::Bad, "test", now), None);

    // It opened and was closed by probes once more.
    let (mut breaker, [mut first, mut second, _third]) = probing(now);
    assert_eq!(breaker.begun(&mut first), None);
    assert_eq!(breaker.begun(&mut second), Some(Standing::Closed));
    for _ in 0..LIMITS.failures {
        call(&mut breaker, Weight::Bad, now);
    }
    let later = now + LIMITS.open_for;
    assert_eq!(call(&mut breaker, Weight::Good, later), None);
    assert_eq!(breaker.settle(first, Weight::Bad, "test", later), None);
    assert_eq!(call(&mut breaker, Weight::Good, later), Some(Standing::Closed));
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, Weight::Bad, later), None);
    }
    assert_eq!(breaker.settle(second, Weight::Bad, "test", later), None);
}

#[test]
fn a_call_while_closed_does_not_count_when_it_begins() {
    let now = Instant::now();
    let mut breaker = Breaker::new(LIMITS);
    let mut ticket = breaker.ask(now).expect("closed");
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, Weight::Bad, now), None);
    }
    assert_eq!(breaker.begun(&mut ticket), None);
    let changed = breaker.settle(ticket, Weight::Bad, "test", now);
    assert!(matches!(changed, Some(Standing::Open { .. })), "the row is not broken by a beginning");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    Begun,
    Settle(Weight),
    Reset,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        4 => Just(Step::Begun),
        2 => Just(Step::Settle(Weight::Good)),
        3 => Just(Step::Settle(Weight::Bad)),
        1 => Just(Step::Settle(Weight::Neither)),
        1 => prop::bool::weighted(0.2).prop_map(|resets| if resets { Step::Reset } else { Step::Ask }),
    ]
}

/// A ticket that is out, and what is known of it from outside.
struct Held {
    ticket: Ticket,
    epoch: u64,
    /// Its answer began while it was a probe of the current epoch.
    begun: bool,
}

proptest! {
    /// In any order of calls, beginnings and ends: open means no call; half-open, as many places
    /// are taken as probes are out that have not begun, and each success is another probe's; what
    /// comes from before a change never changes anything.
    #[test]
    fn never_more_than_its_probes(
        steps in prop::collection::vec((any_step(), 0_usize..8, 0_u64..40), 1..200),
    ) {
        let limits = Limits { failures: 2, ..LIMITS };
        let mut now = Instant::now();
        let mut breaker = Breaker::new(limits);
        let mut held: Vec<Held> = Vec::new();
        // Probes of this epoch that went well; the closed epoch that was reached by probes, and theirs.
        let (mut good, mut followed) = (0_u32, None);
        for (step, which, seconds) in steps {
            now += Duration::from_secs(seconds);
            let (epoch, half_open) = (breaker.epoch, matches!(breaker.standing(), Standing::HalfOpen { .. }));
            let before = format!("{breaker:?}");
            let at = which.checked_rem(held.len());
            match (step, at) {
                (Step::Reset, _) => breaker.reset(),
                (Step::Ask, _) => {
                    let admits = breaker.admits(now);
                    let ticket = breaker.ask(now);
                    prop_assert_eq!(ticket.is_some(), admits);
                    let epoch = breaker.epoch;
                    held.extend(ticket.map(|ticket| Held { ticket, epoch, begun: false }));
                }
                (Step::Begun, Some(at)) => {
                    let one = &mut held[at];
                    let counts = half_open && one.epoch == epoch && !one.begun;
                    let changed = breaker.begun(&mut one.ticket);
                    one.begun |= counts;
                    good += u32::from(counts);
                    let untouched = changed.is_none() && before == format!("{breaker:?}");
                    prop_assert!(counts || untouched);
                    prop_assert_eq!(changed, (counts && good == 2).then_some(Standing::Closed));
                }
                (Step::Settle(weight), Some(at)) => {
                    let one = held.swap_remove(at);
                    let counts = one.epoch == epoch || (one.begun && followed == Some((epoch, one.epoch)));
                    let succeeds = half_open && counts && weight == Weight::Good && !one.begun;
                    good += u32::from(succeeds);
                    let changed = breaker.settle(one.ticket, weight, "test", now);
                    let untouched = changed.is_none() && before == format!("{breaker:?}");
                    prop_assert!(counts || untouched);
                    prop_assert_eq!(changed == Some(Standing::Closed), succeeds && good == 2);
                    let opened = matches!(changed, Some(Standing::Open { .. }));
                    prop_assert!(opened || !(half_open && counts && weight == Weight::Bad));
                }
                (Step::Begun | Step::Settle(_), None) => {}
            }
            if breaker.epoch != epoch {
                if half_open && good == 2 {
                    followed = Some((breaker.epoch, epoch));
                }
                good = 0;
            }
            if let State::HalfOpen { in_flight, successes, .. } = breaker.state {
                let probes = held.iter().filter(|one| one.epoch == breaker.epoch && !one.begun).count();
                prop_assert_eq!(in_flight as usize, probes, "a place is neither lost nor freed twice");
                prop_assert!(in_flight <= limits.probes);
                prop_assert_eq!(successes, good);
            }
        }
    }
}

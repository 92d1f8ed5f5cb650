//! The laws of the clock under any wall clock, and what is told of each step.

use proptest::prelude::*;

use super::*;
use crate::window::Window;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
/// 2026-01-01.
const NOON: UnixSeconds = UnixSeconds(1_767_225_600 + DAY / 2);

fn mono(seconds: i64) -> Duration {
    Duration::from_secs(1000 + seconds.unsigned_abs())
}

fn later(seconds: i64) -> UnixSeconds {
    UnixSeconds::new(NOON.0 + seconds)
}

fn started() -> Clock {
    Clock::start(None, NOON, mono(0)).0
}

/// What it shows after so many seconds under a wall clock that shows so many more; with the step.
fn read(clock: &mut Clock, seconds: i64, wall_ahead: i64) -> (i64, Option<i64>) {
    let reading = clock.read(later(seconds + wall_ahead), mono(seconds));
    (reading.now.0 - NOON.0, reading.step.map(|step| step.by_seconds))
}

#[test]
fn a_start_goes_on_at_the_anchor_or_the_wall_clock() {
    let start = |anchor: Option<i64>| {
        let (clock, start) = Clock::start(anchor.map(later), NOON, mono(0));
        (clock.now().0 - NOON.0, start)
    };
    assert_eq!(start(None), (0, Start::First));
    assert_eq!(start(Some(0)), (0, Start::Onward { away_seconds: 0 }));
    assert_eq!(start(Some(-90)), (0, Start::Onward { away_seconds: 90 }));
    assert_eq!(start(Some(-10 * DAY)), (0, Start::Onward { away_seconds: 864_000 }));
    assert_eq!(start(Some(1)), (1, Start::Behind { by_seconds: 1 }));
    assert_eq!(start(Some(10 * DAY)), (10 * DAY, Start::Behind { by_seconds: 864_000 }));
}

#[test]
fn a_start_behind_the_anchor_goes_on_from_there() {
    // Far behind: by monotonic time, and the step is not told a second time.
    let (mut clock, _) = Clock::start(Some(later(DAY)), NOON, mono(0));
    assert_eq!(read(&mut clock, 60, 0), (DAY + 60, None));
    assert_eq!(read(&mut clock, DAY, 0), (2 * DAY, None));
    // Set right, it is followed again.
    assert_eq!(read(&mut clock, DAY + 60, DAY), (2 * DAY + 60, Some(DAY)));
    // A little behind: a tenth slower, until both agree.
    let (mut clock, _) = Clock::start(Some(later(100)), NOON, mono(0));
    assert_eq!(read(&mut clock, 500, 0), (550, None));
    assert_eq!(read(&mut clock, 2000, 0), (2000, None));
}

#[test]
fn a_wall_clock_that_is_a_little_off_is_followed_by_tenths() {
    let mut clock = started();
    assert_eq!(read(&mut clock, 100, 300), (110, None));
    assert_eq!(read(&mut clock, 1100, 300), (1210, None));
    assert_eq!(read(&mut clock, 3100, 300), (3400, None), "it has caught up");
    assert_eq!(read(&mut clock, 3200, 0), (3490, None), "and now it is ahead");
    assert_eq!(read(&mut clock, 6200, 0), (6200, None));
    assert_eq!(read(&mut clock, 6300, 1), (6301, None));
    assert_eq!(read(&mut clock, 6304, -1), (6304, None), "a tenth of four seconds is less than one");
    assert_eq!(read(&mut clock, 6400, -1), (6399, None));
}

#[test]
fn a_step_is_told_once_and_not_followed() {
    for by in [-400 * DAY, -DAY, -301, 301, DAY, 400 * DAY] {
        let mut clock = started();
        assert_eq!(read(&mut clock, 60, by), (60, Some(by)));
        for seconds in 61..200 {
            assert_eq!(read(&mut clock, seconds, by), (seconds, None), "{by}");
        }
        assert_eq!(read(&mut clock, DAY, by), (DAY, None));
        // Further off in small steps: they are told when they are five minutes together.
        assert_eq!(read(&mut clock, DAY + 1, by + by.signum() * 200), (DAY + 1, None));
        let further = by + by.signum() * 400;
        assert_eq!(read(&mut clock, DAY + 2, further), (DAY + 2, Some(further - by)));
        // Set right.
        assert_eq!(read(&mut clock, DAY + 3, 0), (DAY + 3, Some(-further)));
        assert_eq!(read(&mut clock, DAY + 1003, 0), (DAY + 1003, None));
        assert_eq!(read(&mut clock, DAY + 1103, 50), (DAY + 1113, None), "it is followed again");
    }
}

#[test]
fn a_wall_clock_at_the_bound_is_told_once() {
    let mut clock = started();
    assert_eq!(read(&mut clock, 1, 301), (1, Some(301)));
    for seconds in 2..100 {
        assert_eq!(read(&mut clock, seconds, 301 - seconds % 3), (seconds, None));
    }
    assert_eq!(read(&mut clock, 100, 151), (100, None));
    assert_eq!(read(&mut clock, 200, 150), (210, None), "near enough to be followed");
}

#[test]
fn a_reading_that_comes_late_changes_nothing() {
    let mut clock = started();
    assert_eq!(read(&mut clock, 1000, 0), (1000, None));
    assert_eq!(read(&mut clock, 400, 0), (1000, None), "taken ten minutes ago");
    assert_eq!(read(&mut clock, 1001, 0), (1001, None));
}

#[test]
fn a_day_ahead_gives_no_new_day() {
    let today = Window::Day("UTC".parse().unwrap()).span(NOON);
    let mut clock = started();
    for seconds in (0..DAY / 2).step_by(600) {
        let reading = clock.read(later(seconds + DAY), mono(seconds));
        assert!(today.contains(reading.now), "{seconds}");
    }
    let midnight = clock.read(later(DAY / 2 + DAY), mono(DAY / 2)).now;
    assert_eq!(Some(midnight), today.end);
}

#[test]
fn the_ends_of_time_hold() {
    assert_eq!(UnixSeconds::new(-1), UnixSeconds::EPOCH);
    assert_eq!(UnixSeconds::new(i64::MAX), UnixSeconds::MAX);
    let (mut clock, _) = Clock::start(Some(UnixSeconds::MAX), UnixSeconds::EPOCH, Duration::ZERO);
    assert_eq!(clock.read(UnixSeconds::EPOCH, Duration::MAX).now, UnixSeconds::MAX);
    assert_eq!(clock.read(UnixSeconds::MAX, Duration::MAX).now, UnixSeconds::MAX);
    let (mut clock, _) = Clock::start(None, UnixSeconds::EPOCH, Duration::ZERO);
    assert_eq!(clock.read(UnixSeconds::MAX, Duration::from_secs(1)).now, UnixSeconds(1));
}

#[test]
fn steps_say_which_way() {
    assert_eq!(Step { by_seconds: 400 }.to_string(), "the wall clock was set ahead by 400 s");
    assert_eq!(Step { by_seconds: -400 }.to_string(), "the wall clock was set back by 400 s");
}

/// What happens next to a gateway.
#[derive(Clone, Debug)]
enum Event {
    /// Its clock is read after so long.
    Read { millis: u64 },
    /// Somebody sets the wall clock.
    Set { by_seconds: i64 },
    /// It starts again after so long, with the anchor and without its monotonic time.
    Restart { millis: u64 },
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let step = prop_oneof![-400_i64..400, -10 * MINUTE..10 * MINUTE, -3 * DAY..3 * DAY];
    let event = prop_oneof![
        4 => (0_u64..5000).prop_map(|millis| Event::Read { millis }),
        2 => (0_u64..8 * 3_600_000).prop_map(|millis| Event::Read { millis }),
        2 => step.prop_map(|by_seconds| Event::Set { by_seconds }),
        1 => (0_u64..3_600_000).prop_map(|millis| Event::Restart { millis }),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever happens, it never goes back, and so no closed window opens again; and between starts
    /// it advances as monotonic time does, give or take a tenth, so no window comes early.
    #[test]
    fn nobody_can_set_it(events in any_events()) {
        let day = Window::Day("Europe/Helsinki".parse().unwrap());
        let (mut real, mut booted, mut set) = (0_u64, 0_u64, 0_i64);
        let mut clock = started();
        let mut since = (clock.now(), real);
        for event in events {
            let before = clock.now();
            let wall = |real: u64, set: i64| later(real as i64 / 1000 + set);
            match event {
                Event::Read { millis } => {
                    real += millis;
                    let mono = Duration::from_secs(1000) + Duration::from_millis(real - booted);
                    let now = clock.read(wall(real, set), mono).now;
                    let (passed, real_passed) = (now.0 - since.0.0, (real - since.1) as i64);
                    prop_assert!(passed * 1000 <= real_passed * 11 / 10 + 1000, "{passed} s in {real_passed} ms");
                    prop_assert!(passed * 1000 >= real_passed * 9 / 10 - 1000, "{passed} s in {real_passed} ms");
                }
                Event::Set { by_seconds } => set += by_seconds,
                Event::Restart { millis } => {
                    real += millis;
                    booted = real;
                    clock = Clock::start(Some(before), wall(real, set), Duration::from_secs(1000)).0;
                    prop_assert_eq!(clock.now(), before.max(wall(real, set)));
                    since = (clock.now(), real);
                }
            }
            prop_assert!(before <= clock.now());
            let (was, is) = (day.span(before), day.span(clock.now()));
            prop_assert!(was == is || was.end.unwrap() <= is.start);
        }
    }

    /// A wall clock that nobody sets is what it shows, though monotonic time drifts as far as a time
    /// server slews it, and through restarts.
    #[test]
    fn left_alone_both_agree_within_a_second(
        slew_millionths in 0_u64..=1000,
        fraction_millis in 0_u64..1000,
        waits in prop::collection::vec((0_u64..600_000, prop::bool::weighted(0.05)), 1..200),
    ) {
        let mono = |real: u64| Duration::from_nanos(real * (999_500 + slew_millionths));
        let mut real = fraction_millis;
        let mut clock = Clock::start(None, NOON, mono(real)).0;
        for (millis, restart) in waits {
            real += millis;
            let (wall, mono) = (later(real as i64 / 1000), mono(real));
            if restart {
                clock = Clock::start(Some(clock.now()), wall, mono).0;
            }
            let reading = clock.read(wall, mono);
            prop_assert_eq!(reading.step, None);
            prop_assert!((reading.now.0 - wall.0).abs() <= 1, "{:?} {:?}", reading.now, wall);
        }
    }

    /// A step is told when it is seen and then never again, whoever reads how often.
    #[test]
    fn each_step_is_told_once(
        by_seconds in prop_oneof![-3 * DAY..-301, 301..3 * DAY],
        waits in prop::collection::vec(0_u64..60_000, 1..100),
    ) {
        let (mut real, mut clock) = (0, started());
        let mut told = Vec::new();
        for millis in waits {
            real += millis;
            let wall = later(real as i64 / 1000 + by_seconds);
            told.extend(clock.read(wall, Duration::from_secs(1000) + Duration::from_millis(real)).step);
        }
        prop_assert_eq!(told, [Step { by_seconds }]);
    }
}

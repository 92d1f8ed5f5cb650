//! Whose money an attempt is, around midnights, and when somebody sets the machine's clock. Nothing
//! sleeps: both clocks are told.

use sluice_ledger::hold::{Attempt, Hold};
use sluice_ledger::spending::NotHeld;
use tempfile::TempDir;

use super::*;

const CAP: u64 = 100;

/// Noon of 2026-03-28 in UTC: the day before clocks go forward in Helsinki.
const NOON: i64 = 1_774_699_200;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A gateway's money and the machine's clocks.
struct Machine {
    folder: TempDir,
    money: Option<Money>,
    budget: Budget,
    /// Seconds since noon.
    passed: i64,
    /// What the wall clock shows more than there is.
    set_by: i64,
    started: i64,
    runtime: tokio::runtime::Runtime,
}

impl Machine {
    fn start(zone: &str) -> Machine {
        let rule = budget::Budget { name: "day".into(), cap: NanoUsd::from_nanos(CAP), mode: Mode::Enforce };
        let budget = Budget {
            rule: Arc::new(rule),
            per: Per::All,
            window: Window::Day(zone.parse().unwrap()),
            unpriced: Unpriced::Deny,
            missing_run: MissingRun::Refuse,
            downgrade_to: None,
            runs: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = TempDir::new().unwrap();
        let mut machine = Machine { folder, money: None, budget, passed: 0, set_by: 0, started: 0, runtime };
        machine.restart();
        machine
    }

    /// The gateway ends and starts again, and its monotonic time has another beginning.
    fn restart(&mut self) {
        self.money.take().iter().for_each(|money| money.spending.close());
        self.started = self.passed;
        self.money = Some(Money::open(self.folder.path(), self.moment()).unwrap());
    }

    fn moment(&self) -> Moment {
        let mono = Duration::from_secs((self.passed - self.started).unsigned_abs() + 1000);
        Moment { wall: UnixSeconds::new(NOON + self.passed + self.set_by), mono }
    }

    fn money(&self) -> &Money {
        self.money.as_ref().unwrap()
    }

    /// Time passes, in which somebody asks now and then.
    fn pass(&mut self, seconds: i64) {
        let end = self.passed + seconds;
        while self.passed < end {
            self.passed = end.min(self.passed + 60);
            let _ = self.draws();
        }
    }

    fn draws(&self) -> Drawn {
        let draws = self.money().draws(
            std::slice::from_ref(&self.budget),
            &Caller::default(),
            "m",
            "a",
            self.moment(),
        );
        draws.unwrap().accounts.remove(0)
    }

    fn hold(&self, amount: u64) -> Result<Hold, NotHeld> {
        let attempt = Attempt::default();
        let spending = &self.money().spending;
        self.runtime.block_on(spending.hold(&[self.draws()], NanoUsd::from_nanos(amount), attempt))
    }

    /// What an attempt of now finds: spent, and seconds until it starts afresh.
    fn finds(&self) -> (u64, u64) {
        let drawn = self.draws();
        // Asked for, or the store alone knows it.
        drop(self.hold(0));
        let rest = self.money().spending.rest(&drawn.key).unwrap();
        (
            CAP - rest.left.nanos() - rest.held.nanos(),
            self.money().until(drawn.resets_s.unwrap(), self.moment()),
        )
    }

    fn spend(&self, amount: u64) {
        self.hold(amount).unwrap().settle(NanoUsd::from_nanos(amount), None);
    }
}

fn is_exhausted(held: Result<Hold, NotHeld>) -> bool {
    matches!(held, Err(NotHeld::Exhausted(_)))
}

#[test]
fn a_new_day_has_new_money_and_the_old_one_keeps_what_began_in_it() {
    let mut machine = Machine::start("UTC");
    machine.spend(70);
    machine.pass(12 * HOUR - 1);
    assert_eq!(machine.finds(), (70, 1));
    assert!(is_exhausted(machine.hold(31)));
    // A stream over midnight.
    let stream = machine.hold(20).unwrap();
    let yesterday = machine.draws();
    machine.pass(1);
    assert_eq!(machine.finds(), (0, 24 * 3600));
    machine.spend(5);
    stream.settle(NanoUsd::from_nanos(19), None);
    assert_eq!(machine.finds().0, 5, "it is the old day's");
    assert_eq!(machine.money().spending.rest(&yesterday.key).unwrap().left.nanos(), CAP - 70 - 19);
    assert!(is_exhausted(machine.hold(96)));
    machine.spend(95);
    assert!(is_exhausted(machine.hold(1)));
    // A restart opens neither again.
    machine.restart();
    assert_eq!(machine.finds().0, CAP);
    machine.pass(DAY);
    assert_eq!(machine.finds().0, 0);
}

#[test]
fn days_on_which_clocks_change_are_as_long_as_they_are() {
    // The days after 28 March and after 24 October: one changes, the next is the control.
    for (noon, days) in [(0, [23, 24]), (210 * DAY, [25, 24])] {
        let mut machine = Machine::start("Europe/Helsinki");
        machine.passed = noon;
        machine.restart();
        for hours in days {
            machine.spend(CAP);
            let (spent, left) = machine.finds();
            assert_eq!(spent, CAP);
            machine.pass(i64::try_from(left).unwrap() - 1);
            assert!(is_exhausted(machine.hold(1)), "the last second");
            machine.pass(1);
            assert_eq!(machine.finds(), (0, hours * 3600), "{noon}");
        }
    }
}

#[test]
fn a_clock_that_is_set_gives_no_money() {
    for by in [-DAY, -2 * HOUR, 2 * HOUR, DAY, 40 * DAY] {
        let mut machine = Machine::start("UTC");
        machine.spend(CAP);
        machine.set_by = by;
        for _ in 0..11 {
            machine.pass(HOUR);
            assert!(is_exhausted(machine.hold(1)), "{by}: it is still the same day");
        }
        machine.pass(HOUR);
        assert_eq!(machine.finds().0, 0, "{by}: a day has passed");
        machine.spend(CAP);
        // Set back behind the midnight that has been, and started again there.
        machine.set_by = -3 * HOUR;
        machine.pass(60);
        assert!(is_exhausted(machine.hold(1)), "{by}");
        machine.restart();
        assert!(is_exhausted(machine.hold(1)), "{by}: neither day has anything left");
    }
}

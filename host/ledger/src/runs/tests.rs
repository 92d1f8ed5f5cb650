//! Runs that end, by hand and by themselves, beside processes that die.

mod ends;

use std::path::Path;
use std::time::{Duration, Instant};

use sluice_core::books::Mode;
use tempfile::TempDir;

use super::acts::{Closed, RunStanding};
use super::*;
use crate::budget::{AccountKey, Budget};
use crate::hold::{Attempt, Hold};
use crate::spending::{NotHeld, Spending};
use sluice_core::money::NanoUsd;

const IDLE_S: i64 = 3600;
const RUNS_MAX: u32 = 3;
const CAP: u64 = 10_000;

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn rules() -> Rules {
    let runs = RunRules { idle_s: IDLE_S, runs_max: RUNS_MAX };
    let many = RunRules { runs_max: RUNS_MAX + 1, ..runs };
    let runs = [("runs".into(), runs), ("tries".into(), runs), ("many".into(), many)].into();
    Rules { runs, ..Rules::default() }
}

fn open(folder: &Path, now_s: i64) -> Arc<Spending> {
    let (spending, found) = Spending::open(folder, "boot-1", 1).unwrap();
    spending.keep_clock(now_s.max(found.clock_s.unwrap_or(0)));
    spending.follow(Box::new(rules));
    spending
}

fn store(folder: &Path) -> Store {
    Store::open(&folder.join("sluice.db")).unwrap()
}

fn drawn(budget: &str, scope: &str) -> Drawn {
    let mode = if budget == "tries" { Mode::Shadow } else { Mode::Enforce };
    let rule = Arc::new(Budget { name: budget.into(), cap: usd(CAP), mode });
    let key = AccountKey { budget: budget.into(), scope: scope.into(), start_s: 0 };
    Drawn { budget: rule, key, resets_s: None }
}

fn hold_on(spending: &Arc<Spending>, drawn: &[Drawn], amount: u64) -> Result<Hold, NotHeld> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(spending.hold(drawn, usd(amount), Attempt::default())).map(|mut hold| {
        hold.sent();
        hold
    })
}

fn hold(spending: &Arc<Spending>, scope: &str, amount: u64) -> Result<Hold, NotHeld> {
    hold_on(spending, &[drawn("runs", scope)], amount)
}

/// Draws on it, and lets it rest.
fn pays(spending: &Arc<Spending>, scope: &str, cost: u64) {
    hold(spending, scope, cost).unwrap().settle(usd(cost), None);
    rests(spending);
}

/// As after some seconds: nothing is leased any more.
fn rests(spending: &Spending) {
    // What the first one settles, the second one forgets.
    spending.rest_now();
    spending.rest_now();
    spending.flush().unwrap();
}

fn run(scope: &str) -> RunId {
    RunId::of_scope(&scope.into()).unwrap()
}

fn close(folder: &Path, scope: &str) -> Closed {
    store(folder).close_run("cli", &run(scope), 1000).unwrap()
}

fn is_closed(closed: Closed) -> bool {
    matches!(closed, Closed::Done { .. })
}

/// How a run was refused.
fn ended(result: Result<Hold, NotHeld>) -> Option<EndedBy> {
    match result {
        Err(NotHeld::Run(refused)) => match *refused {
            RunRefused::Ended { by, .. } => Some(by),
            RunRefused::TooMany { .. } => None,
        },
        Ok(_) | Err(_) => None,
    }
}

fn is_too_many(result: Result<Hold, NotHeld>) -> bool {
    let wanted = RunRefused::TooMany { budget: "runs".into(), runs_max: RUNS_MAX };
    matches!(result, Err(NotHeld::Run(refused)) if *refused == wanted)
}

fn standing(folder: &Path, scope: &str) -> Option<RunStanding> {
    store(folder).runs(None, true, 1000).unwrap().into_iter().find(|one| one.run == run(scope))
}

/// Settled on a run's account.
fn settled(folder: &Path, scope: &str) -> u64 {
    let accounts = store(folder).accounts(Some("runs"), 1000).unwrap();
    accounts.iter().filter(|one| &*one.key.scope == scope).map(|one| one.vault.settled.nanos()).sum()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Who is refused by one budget has begun no run in another.
#[test]
fn a_name_that_one_budget_refuses_takes_no_place_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let spending = open(folder.path(), 1000);
    let both = |scope: &str| hold_on(&spending, &[drawn("many", scope), drawn("runs", scope)], 1);
    let scope = |number: u32| format!("AAAAAAAAAAAA/{number}");
    let _held: Vec<Hold> = (0..RUNS_MAX).map(|number| both(&scope(number)).unwrap()).collect();
    for number in RUNS_MAX..20 {
        assert!(is_too_many(both(&scope(number))), "{number}");
    }
    // The control: there is a place left, for one.
    assert!(hold_on(&spending, &[drawn("many", &scope(20))], 1).is_ok());
    assert!(matches!(hold_on(&spending, &[drawn("many", &scope(21))], 1), Err(NotHeld::Run(_))));
}

#[test]
fn a_run_is_a_key_and_a_name() {
    let id = RunId::new("AAAAAAAAAAAA", "a/b").unwrap();
    assert_eq!((id.key(), id.name()), ("AAAAAAAAAAAA", "a/b"));
    assert_eq!(RunId::new("", "r").map(|id| id.key().to_owned()), Some(String::new()));
    for (key, name) in [("A", "r"), ("", ""), ("", "a b"), ("", "é"), ("/", "r")] {
        assert_eq!(RunId::new(key, name), None, "{key:?} {name:?}");
    }
    assert_eq!(RunId::new("", &"x".repeat(129)), None);
    assert_eq!(RunId::of_scope(&"AAAAAAAAAAAA/".into()), None, "of calls without a run");
    assert_eq!(RunId::of_scope(&"team".into()), None);
}

#[test]
fn a_closed_run_refuses_what_is_new_and_settles_what_is_under_way() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 0);
    let before = hold(&spending, "k/r", 100).unwrap();
    hold(&spending, "k/other", 10).unwrap().settle(usd(10), None);
    assert!(is_closed(close(folder.path(), "k/r")));
    // Answered after the writer has looked.
    spending.flush().unwrap();
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Closed));
    before.settle(usd(70), None);
    hold(&spending, "k/other", 10).unwrap().settle(usd(10), None);
    assert_eq!(close(folder.path(), "k/r"), Closed::Already { ended_s: 1, by: EndedBy::Closed });
    assert_eq!(close(folder.path(), "k/never"), Closed::Unknown);
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Closed));
    spending.close();
    assert_eq!((settled(folder.path(), "k/r"), settled(folder.path(), "k/other")), (70, 20));
    let acts = store(folder.path()).acts(10, None).unwrap();
    let acts: Vec<_> = acts.iter().map(|act| (&*act.act, &*act.subject, &*act.outcome)).collect();
    let wanted = [("k/never", "unknown"), ("k/r", "already_ended"), ("k/r", "done")];
    assert_eq!(acts, wanted.map(|(subject, outcome)| ("run.close", subject, outcome)));
    // The next process knows it, and so does one that dies.
    for round in 0..2 {
        let spending = open(folder.path(), 0);
        assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Closed), "{round}");
        spending.abandon();
    }
}

#[test]
fn what_is_closed_while_nobody_runs_is_closed() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 0);
    pays(&spending, "k/r", 10);
    std::mem::forget(hold(&spending, "k/open", 10).unwrap());
    spending.abandon();
    assert!(is_closed(close(folder.path(), "k/r")));
    let spending = open(folder.path(), 0);
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Closed));
    hold(&spending, "k/open", 10).unwrap().settle(usd(10), None);
    // What is in doubt of a run can be closed, and stays in doubt.
    assert!(is_closed(close(folder.path(), "k/open")));
    spending.close();
    assert_eq!(standing(folder.path(), "k/open").unwrap().spent, usd(20));
}

#[test]
fn a_run_that_rests_for_long_has_ended_and_gets_no_fresh_cap() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    pays(&spending, "k/r", CAP - 1);
    pays(&spending, "k/", 10);
    spending.keep_clock(1000 + IDLE_S - 1);
    // Used again just in time, it rests from then on.
    pays(&spending, "k/r", 1);
    spending.keep_clock(1000 + 2 * IDLE_S - 2);
    assert!(matches!(hold(&spending, "k/r", 1), Err(NotHeld::Exhausted(_))), "nothing is left of its cap");
    rests(&spending);
    spending.keep_clock(1000 + 4 * IDLE_S);
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Idle));
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Idle), "however often it comes back");
    pays(&spending, "k/", 10);
    spending.close();
    assert_eq!((settled(folder.path(), "k/r"), settled(folder.path(), "k/")), (CAP, 20));
    let spending = open(folder.path(), 0);
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Idle), "and over a restart");
    assert_eq!(
        close(folder.path(), "k/r"),
        Closed::Already { ended_s: 1000 + 4 * IDLE_S, by: EndedBy::Idle }
    );
    pays(&spending, "k/late", 1);
    assert!(is_closed(close(folder.path(), "k/late")), "by a clock that shows the first second of 1970");
    let ended = standing(folder.path(), "k/late").unwrap().ended;
    assert_eq!(ended, Some((1000 + 4 * IDLE_S, EndedBy::Closed)), "at the time of budgets");
    spending.close();
}

#[test]
fn it_ends_while_the_gateway_is_down_and_by_itself_where_nobody_comes() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    pays(&spending, "k/down", 1);
    pays(&spending, "j/alone", 1);
    spending.abandon();
    let spending = open(folder.path(), 1000 + IDLE_S);
    assert_eq!(ended(hold(&spending, "k/down", 1)), Some(EndedBy::Idle));
    // Nobody asks for the other one; the writer looks about once a second.
    until("it has ended by itself", || {
        standing(folder.path(), "j/alone").unwrap().ended == Some((1000 + IDLE_S, EndedBy::Idle))
    });
    spending.close();
}

#[test]
fn a_run_with_a_call_under_way_does_not_rest() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    let under_way = hold(&spending, "k/r", 10).unwrap();
    // An hour in steps, and one at once.
    for now_s in (1000..1000 + 2 * IDLE_S).step_by(600).chain([1000 + 9 * IDLE_S]) {
        spending.keep_clock(now_s);
        spending.flush().unwrap();
    }
    let more = hold(&spending, "k/r", CAP - 100).unwrap();
    drop(more.settle(usd(0), None));
    under_way.settle(usd(10), None);
    rests(&spending);
    assert_eq!(standing(folder.path(), "k/r").unwrap().used_s, 1000 + 9 * IDLE_S);
    spending.keep_clock(1000 + 10 * IDLE_S);
    assert_eq!(ended(hold(&spending, "k/r", 1)), Some(EndedBy::Idle), "the control");
    spending.close();
}

#[test]
fn a_crash_makes_a_run_no_older_than_a_quarter_of_a_minute() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    // One lease, and no other question to the store for a long time.
    let kept = hold(&spending, "k/r", 10).unwrap();
    for now_s in 1000..1000 + IDLE_S {
        spending.keep_clock(now_s);
        if now_s % 5 == 0 {
            spending.flush().unwrap();
        }
    }
    std::mem::forget(kept);
    spending.abandon();
    let used_s = standing(folder.path(), "k/r").unwrap().used_s;
    assert!((1000 + IDLE_S - 20..1000 + IDLE_S).contains(&used_s), "{used_s}");
    let spending = open(folder.path(), used_s + IDLE_S - 1);
    drop(hold(&spending, "k/r", 1).unwrap());
    spending.close();
}

#[test]
fn a_key_has_so_many_runs_at_once_however_many_names_it_invents() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    let names: Vec<String> = (0..50).map(|number| format!("k/{number}")).collect();
    for (place, name) in names.iter().enumerate() {
        let held = hold(&spending, name, 1);
        if place < RUNS_MAX as usize {
            held.unwrap().settle(usd(1), None);
        } else {
            assert!(is_too_many(held), "{name}");
        }
    }
    // Others have their own, and calls without a run are none.
    pays(&spending, "j/0", 1);
    pays(&spending, "/0", 1);
    pays(&spending, "k/", 1);
    pays(&spending, "k/0", 1);
    assert_eq!(store(folder.path()).runs(None, true, 1000).unwrap().len(), 5);
    assert_eq!(store(folder.path()).runs(Some("k"), true, 1000).unwrap().len(), RUNS_MAX as usize);
    assert_eq!(store(folder.path()).accounts(None, 1000).unwrap().len(), 6, "who is refused costs no room");
    assert!(is_closed(close(folder.path(), "k/1")));
    pays(&spending, &names[10], 1);
    assert!(is_too_many(hold(&spending, &names[11], 1)), "one for one");
    spending.keep_clock(1000 + IDLE_S);
    pays(&spending, &names[12], 1);
    assert_eq!(store(folder.path()).runs(Some("k"), false, 1000).unwrap().len(), 1, "all others rest");
    spending.close();
}

#[test]
fn a_shadow_sees_no_run_that_has_ended_and_none_too_many_and_refuses_nobody() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    for number in 0..10 {
        let accounts = [drawn("tries", &format!("k/{number}")), drawn("all", "")];
        hold_on(&spending, &accounts, 1).unwrap().settle(usd(1), None);
    }
    assert!(is_closed(close(folder.path(), "k/0")));
    spending.flush().unwrap();
    hold_on(&spending, &[drawn("tries", "k/0"), drawn("all", "")], 1).unwrap().settle(usd(1), None);
    spending.close();
    let of = |budget: &str| -> u64 {
        let accounts = store(folder.path()).accounts(Some(budget), 100).unwrap();
        accounts.iter().map(|one| one.vault.settled.nanos()).sum()
    };
    assert_eq!((of("tries"), of("all")), (RUNS_MAX.into(), 11));
}

#[test]
fn an_account_knows_when_its_window_ends() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path(), 1000);
    for (scope, resets_s) in [("a", Some(2000)), ("b", None), ("a", Some(3000))] {
        let account = Drawn { resets_s, ..drawn("all", scope) };
        hold_on(&spending, &[account], 1).unwrap().settle(usd(1), None);
        rests(&spending);
    }
    spending.close();
    let store = store(folder.path());
    let mut find = store.connection().prepare("SELECT scope, ends_s FROM accounts ORDER BY scope").unwrap();
    let found = find.query_map([], |found| Ok((found.get(0)?, found.get(1)?))).unwrap();
    let found: Vec<(String, Option<i64>)> = found.collect::<Result<_, _>>().unwrap();
    assert_eq!(found, [("a".into(), Some(3000)), ("b".into(), None)]);
}

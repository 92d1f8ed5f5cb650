//! Many callers, one cap, and processes that die.

mod amounts;
mod bad_disks;
mod caps;
mod waiting;

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use sluice_core::books::Mode;
use tempfile::TempDir;

use super::*;
use crate::budget::Budget;
use crate::usage::{Query, Which};

const BOOT: &str = "boot-1";

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn open(folder: &Path) -> (Arc<Spending>, Found) {
    Spending::open(folder, BOOT, 1).unwrap()
}

fn drawn(name: &str, scope: &str, cap: u64) -> Drawn {
    let budget = Arc::new(Budget { name: name.into(), cap: usd(cap), mode: Mode::Enforce });
    let key = AccountKey { budget: name.into(), scope: scope.into(), start_s: 0 };
    Drawn { budget, key, resets_s: None }
}

fn caps(name: &str, amount: u64, mode: Mode) -> Caps {
    [(name.into(), Cap { amount: usd(amount), mode })].into()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn hold(spending: &Arc<Spending>, drawn: &[Drawn], amount: u64) -> Result<Hold, NotHeld> {
    block_on(spending.hold(drawn, usd(amount), Attempt::default()))
}

/// Settled and in doubt, as the database has it.
fn spent(folder: &Path, budget: &str) -> (u64, u64) {
    let store = Store::open(&folder.join("sluice.db")).unwrap();
    let query =
        "SELECT coalesce(sum(settled), 0), coalesce(sum(in_doubt), 0) FROM accounts WHERE budget = ?1";
    store
        .connection()
        .query_row(query, [budget], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))
        .unwrap()
}

fn leased(folder: &Path) -> u64 {
    let store = Store::open(&folder.join("sluice.db")).unwrap();
    let query = "SELECT coalesce(sum(leased), 0) FROM leases";
    store.connection().query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

/// A small generator: a seed is a run that can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// How the race settles what came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// As the gateway does: what the vendor says, else all that was held.
    Right,
    /// What a hang-up leaves unsaid is free: the mistake of others.
    HangUpIsFree,
}

/// What the race came to.
struct Outcome {
    billed: u64,
    charged: u64,
    left: u64,
    least_refused: u64,
}

const CALL: u64 = 1000;
const CLIENTS: u64 = 64;

/// Clients that hang up, vendors that fail, one cap of about sixty calls on key, run and team at once.
fn race(seed: u64, rule: Rule) -> Outcome {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let mut chance = Chance(seed);
    let cap = 60 * CALL - chance.below(CALL);
    let accounts = [drawn("key", "k", cap), drawn("run", "r", cap + 5), drawn("team", "t", 2 * cap)];
    let (billed, least) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let threads = 4;
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (spending, accounts, billed, least, start) = (&spending, &accounts, &billed, &least, &start);
            scope.spawn(move || {
                let mut chance = Chance(seed ^ (thread << 32));
                start.wait();
                let mut open = Vec::new();
                'calls: for _ in 0..2 * CLIENTS / threads as u64 {
                    let worst = CALL + chance.below(CALL / 2);
                    let held = loop {
                        match hold(spending, accounts, worst) {
                            Ok(held) => break held,
                            // It may come back: somebody ends a call, and it is tried again.
                            Err(NotHeld::Held(refused)) => {
                                assert!(refused.rest.left < refused.amount, "seed {seed}: {refused:?}");
                                match open.pop() {
                                    Some((held, worst)) => end(held, worst, &mut chance, billed, rule),
                                    None => thread::yield_now(),
                                }
                            }
                            Err(NotHeld::Exhausted(refused)) => {
                                least.fetch_min(refused.amount.nanos(), Ordering::Relaxed);
                                continue 'calls;
                            }
                            Err(why @ (NotHeld::Store(_) | NotHeld::Run(_))) => panic!("{why:?}"),
                        }
                    };
                    open.push((held, worst));
                    if open.len() > 3 || chance.below(2) == 0 {
                        let Some((held, worst)) = open.pop() else { continue };
                        end(held, worst, &mut chance, billed, rule);
                    }
                }
                for (held, worst) in open {
                    end(held, worst, &mut chance, billed, rule);
                }
            });
        }
    });
    let figures = spending.figures();
    assert_eq!((figures.holds, figures.held), (0, NanoUsd::ZERO), "seed {seed}: at rest nothing is held");
    spending.close();
    assert_eq!(leased(folder.path()), 0, "seed {seed}");
    let (charged, in_doubt) = spent(folder.path(), "key");
    assert_eq!((charged, in_doubt), (spent(folder.path(), "team").0, 0), "seed {seed}");
    Outcome {
        billed: billed.into_inner(),
        charged,
        left: cap.saturating_sub(charged),
        least_refused: least.into_inner(),
    }
}

/// One attempt: not sent, failed without a bill, answered, or left by its client after the vendor had
/// done its work.
fn end(mut held: Hold, worst: u64, chance: &mut Chance, billed: &AtomicU64, rule: Rule) {
    match chance.below(10) {
        0 => drop(held),
        1 => {
            held.sent();
            held.settle(NanoUsd::ZERO, None);
        }
        2 | 3 => {
            held.sent();
            billed.fetch_add(worst - chance.below(worst / 4), Ordering::Relaxed);
            match rule {
                Rule::Right => drop(held),
                Rule::HangUpIsFree => drop(held.settle(NanoUsd::ZERO, None)),
            }
        }
        _ => {
            held.sent();
            let truth = worst - chance.below(worst / 4);
            billed.fetch_add(truth, Ordering::Relaxed);
            held.settle(usd(truth), None);
        }
    }
}

#[test]
fn no_race_passes_the_cap() {
    for seed in 0..1000 {
        let Outcome { billed, charged, left, least_refused } = race(seed, Rule::Right);
        assert!(billed <= charged, "seed {seed}: {billed} were billed, {charged} charged");
        assert!(charged <= 60 * CALL, "seed {seed}");
        assert!(left < least_refused, "seed {seed}: {left} are left, {least_refused} were refused");
    }
}

#[test]
fn the_race_sees_a_wrong_rule() {
    let wrong = |seed| {
        let Outcome { billed, charged, .. } = race(seed, Rule::HangUpIsFree);
        billed > charged
    };
    assert!((0..20).any(wrong), "a hang-up that is free is noticed");
}

#[test]
fn what_a_dead_process_had_open_is_in_doubt_and_what_it_had_settled_is_settled() {
    let folder = TempDir::new().unwrap();
    let account = [drawn("all", "", 1000)];
    let (spending, found) = open(folder.path());
    assert_eq!(found, Found { next_hold: 1, ..Found::default() });
    hold(&spending, &account, 100)
        .unwrap()
        .settle(usd(60), Some(Box::new(Row { cost: 60, ..Row::default() })));
    let mut open_one = hold(&spending, &account, 200).unwrap();
    open_one.sent();
    std::mem::forget(open_one);
    spending.abandon();
    let (spending, found) = open(folder.path());
    assert_eq!((found.in_doubt, found.amount, found.power_lost), (1, usd(200), false));
    assert_eq!(leased(folder.path()), 0, "what was leased and not held is free again");
    assert!(matches!(hold(&spending, &account, 741), Err(NotHeld::Exhausted(_))));
    hold(&spending, &account, 740).unwrap().settle(usd(740), None);
    spending.close();
    assert_eq!(spent(folder.path(), "all"), (800, 200));
    let store = Store::open(&folder.path().join("sluice.db")).unwrap();
    let count = |query| store.connection().query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT sum(cost) FROM calls"), 60);
    assert_eq!(count("SELECT sum(cost) FROM usage"), 60);
    assert_eq!(count("SELECT count(*) FROM in_doubt"), 1);
}

#[test]
fn after_a_power_loss_all_that_was_leased_is_in_doubt() {
    let folder = TempDir::new().unwrap();
    let account = [drawn("all", "", 1000)];
    let (spending, _) = open(folder.path());
    hold(&spending, &account, 100).unwrap().settle(usd(60), None);
    let lease = leased(folder.path());
    spending.abandon();
    let (spending, found) = Spending::open(folder.path(), "boot-2", 1).unwrap();
    assert!(found.power_lost);
    spending.close();
    assert_eq!(spent(folder.path(), "all"), (60, lease - 60));
    // In order, another start of the machine changes nothing.
    let (spending, found) = Spending::open(folder.path(), "boot-3", 1).unwrap();
    assert!(!found.power_lost);
    spending.close();
    assert_eq!(spent(folder.path(), "all"), (60, lease - 60));
}

/// Seeds of holds, settlements, flushes and deaths: what is charged and in doubt covers what was
/// billed, and stays within the cap.
#[test]
fn no_death_refunds_anything() {
    for seed in 0..60 {
        let folder = TempDir::new().unwrap();
        let accounts = [drawn("all", "", 20_000), drawn("key", "k", 15_000)];
        let mut chance = Chance(seed);
        let mut billed = 0;
        for _life in 0..5 {
            let (spending, _) = open(folder.path());
            let mut held = Vec::new();
            for _ in 0..chance.below(30) {
                match chance.below(6) {
                    0 => spending.flush().unwrap(),
                    1 | 2 => {
                        let worst = 1 + chance.below(900);
                        if let Ok(mut one) = hold(&spending, &accounts, worst) {
                            one.sent();
                            // The vendor works on it from now on.
                            let truth = chance.below(worst + 1);
                            billed += truth;
                            held.push((one, truth));
                        }
                    }
                    _ => {
                        if let Some((one, truth)) = held.pop() {
                            one.settle(usd(truth), None);
                        }
                    }
                }
            }
            held.into_iter().for_each(|(one, _)| std::mem::forget(one));
            spending.abandon();
        }
        let (spending, _) = open(folder.path());
        spending.close();
        for (budget, cap) in [("all", 20_000), ("key", 15_000)] {
            let (settled, in_doubt) = spent(folder.path(), budget);
            assert!(billed <= settled + in_doubt, "seed {seed}: {billed} of {settled} + {in_doubt}");
            assert!(settled + in_doubt <= cap, "seed {seed}");
        }
    }
}

#[test]
fn a_database_that_others_lock_refuses_new_money_and_loses_none() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let account = [drawn("all", "", 1000)];
    let held = hold(&spending, &account, 10).unwrap();
    let mut other = Store::open(&folder.path().join("sluice.db")).unwrap();
    let lock = other.batch().unwrap();
    // What is leased is promised: it goes on.
    held.settle(usd(7), None);
    hold(&spending, &account, 10).unwrap().settle(usd(8), None);
    assert_eq!(hold(&spending, &account, 990).err(), Some(NotHeld::Store("locked")));
    assert_eq!(spending.figures().trouble, Some("locked"));
    drop(lock);
    hold(&spending, &account, 985).unwrap().settle(usd(985), None);
    assert_eq!(spending.figures().trouble, None);
    spending.close();
    assert_eq!(spent(folder.path(), "all"), (1000, 0));
}

#[test]
fn a_journal_that_grows_goes_on_in_a_new_file() {
    let folder = TempDir::new().unwrap();
    let account = [drawn("all", "", 1_000_000)];
    let (spending, _) = open(folder.path());
    let mut kept = hold(&spending, &account, 5).unwrap();
    kept.sent();
    let first = spending.lock().journal.position().segment;
    let long = "x".repeat(30_000);
    while spending.lock().journal.position().segment < first + 2 {
        let attempt = Attempt { request: long.clone().into(), ..Attempt::default() };
        let one = block_on(spending.hold(&account, usd(1), attempt)).unwrap();
        one.settle(usd(0), None);
        if spending.lock().journal.position().offset > crate::journal::SEGMENT_BYTES {
            spending.flush().unwrap();
        }
    }
    spending.flush().unwrap();
    let left = crate::journal::segments(&folder.path().join("journal")).unwrap();
    assert_eq!(left, [first + 2], "what is in the store can go");
    std::mem::forget(kept);
    spending.abandon();
    let (spending, found) = open(folder.path());
    assert_eq!((found.in_doubt, found.amount), (1, usd(5)), "the first hold went along");
    spending.close();
}

#[test]
fn an_account_that_nobody_draws_on_costs_no_memory() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    for scope in 0..100 {
        let account = [drawn("key", &scope.to_string(), 1000)];
        hold(&spending, &account, 10).unwrap().settle(usd(1), None);
    }
    assert_eq!(spending.lock().known.len(), 100);
    spending.rest_now();
    spending.rest_now();
    assert_eq!((spending.lock().known.len(), leased(folder.path())), (0, 0));
    assert_eq!(spent(folder.path(), "key"), (100, 0));
    spending.close();
}

#[test]
fn an_account_that_is_named_twice_is_drawn_on_once() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let twice = [drawn("all", "", 1000), drawn("all", "", 1000), drawn("key", "k", 1000)];
    let held = hold(&spending, &twice, 600).unwrap();
    assert_eq!(spending.figures().held, usd(1200), "on each of the two");
    held.settle(usd(500), None);
    hold(&spending, &twice, 500).unwrap().settle(usd(500), None);
    spending.close();
    assert_eq!((spent(folder.path(), "all"), spent(folder.path(), "key")), ((1000, 0), (1000, 0)));
}

/// Somebody took an account out by hand: what the journal says of it is told, and is no reason not to
/// start.
#[test]
fn an_account_that_is_gone_does_not_keep_the_gateway_from_starting() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = open(folder.path());
    let (gone, kept) = ([drawn("gone", "", 1000)], [drawn("kept", "", 1000)]);
    hold(&spending, &gone, 10).unwrap().settle(usd(7), None);
    hold(&spending, &kept, 10).unwrap().settle(usd(8), None);
    let open_one = hold(&spending, &gone, 20).unwrap();
    std::mem::forget(open_one);
    spending.abandon();
    let store = Store::open(&folder.path().join("sluice.db")).unwrap();
    store.connection().execute_batch(
        "DELETE FROM leases WHERE account = 1; DELETE FROM accounts WHERE id = 1; UPDATE meta SET value = '1 0' WHERE name = 'journal'",
    ).unwrap();
    drop(store);
    let (spending, _) = open(folder.path());
    spending.close();
    assert_eq!((spent(folder.path(), "gone"), spent(folder.path(), "kept").0 >= 8), ((0, 0), true));
}

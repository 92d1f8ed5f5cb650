//! Processes that die between two attempts of a call.

use std::sync::Arc;

use sluice_core::books::Mode;
use tempfile::TempDir;

use super::*;
use crate::budget::{AccountKey, Budget, Drawn, Scope};
use crate::checker::{Findings, Known};
use crate::doubt::{Charge, InDoubt, Resolved};
use crate::hold::{Attempt, Hold};
use crate::journal::SEGMENT_BYTES;
use crate::spending::Spending;
use crate::usage::Which;

fn open(folder: &Path) -> Arc<Spending> {
    Spending::open(folder, "boot-1", 100).unwrap().0
}

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn hold(spending: &Arc<Spending>, request: &str, amount: u64) -> Hold {
    let budget = Arc::new(Budget { name: "keys".into(), cap: usd(1_000_000), mode: Mode::Enforce });
    let key = AccountKey { budget: "keys".into(), scope: "k".into(), start_s: 0 };
    let drawn = [Drawn { budget, key, resets_s: None }];
    let attempt = Attempt { request: request.into(), name: "up/model".into(), at_ms: 50 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(spending.hold(&drawn, usd(amount), attempt))
        .map(|mut hold| (hold.sent(), hold).1)
        .unwrap()
}

/// The row of a call that has cost so much.
fn row(request: &str, cost: u64) -> Box<Row> {
    Box::new(Row {
        at_ms: 50,
        request: request.into(),
        key: "k".into(),
        outcome: "good".into(),
        cost,
        ..Row::default()
    })
}

/// Request, outcome and cost of each call.
fn calls(folder: &Path) -> Vec<(String, String, u64)> {
    let store = Store::open(&folder.join("sluice.db")).unwrap();
    let calls = store.calls(&Which::default(), 100).unwrap();
    let mut calls: Vec<_> =
        calls.iter().map(|row| (row.request.to_string(), row.outcome.to_string(), row.cost)).collect();
    calls.sort_unstable();
    calls
}

fn check(folder: &Path) -> Findings {
    let store = Store::open(&folder.join("sluice.db")).unwrap();
    store.check(&Known { scopes: [("keys".into(), Scope::Key)].into(), ..Known::default() }).unwrap()
}

#[test]
fn what_a_call_had_cost_when_the_process_died_has_a_row() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path());
    hold(&spending, "broken", 100).settle_so_far(usd(70), row("broken", 70));
    std::mem::forget(hold(&spending, "broken", 200));
    hold(&spending, "twice", 100).settle_so_far(usd(10), row("twice", 10));
    hold(&spending, "twice", 100).settle_so_far(usd(20), row("twice", 30));
    hold(&spending, "whole", 100).settle_so_far(usd(5), row("whole", 5));
    hold(&spending, "whole", 100).settle(usd(6), Some(row("whole", 11)));
    hold(&spending, "passed", 100).settle_so_far(usd(7), row("passed", 7));
    spending.passed(row("passed", 7));
    spending.abandon();
    let call = |request: &str, outcome: &str, cost| (request.to_owned(), outcome.to_owned(), cost);
    let mut wanted = vec![
        call("broken", INTERRUPTED, 70),
        call("passed", "good", 7),
        call("twice", INTERRUPTED, 30),
        call("whole", "good", 11),
    ];
    for round in 0..2 {
        let spending = open(folder.path());
        assert_eq!(calls(folder.path()), wanted, "{round}");
        spending.close();
        assert_eq!(check(folder.path()), Findings::default(), "{round}");
    }
    // The attempt that was open is in doubt, and gets a row of its own.
    let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
    let doubt = store.doubts(10).unwrap()[0].id;
    let scopes = [("keys".into(), Scope::Key)].into();
    let resolved =
        store.resolve(InDoubt::Hold(doubt), Charge::Within(usd(150)), &scopes, &|_| Ok(())).unwrap();
    assert_eq!(resolved, Resolved::Done { held: usd(200) });
    wanted.insert(1, call("broken", "resolved", 150));
    assert_eq!((calls(folder.path()), check(folder.path())), (wanted, Findings::default()));
}

/// Whatever of it the store had by then.
#[test]
fn it_has_one_row_however_much_was_flushed() {
    for flushes in 0..8_u32 {
        let folder = TempDir::new().unwrap();
        let spending = open(folder.path());
        let flush = |bit: u32| {
            if flushes & (1 << bit) != 0 {
                spending.flush().unwrap();
            }
        };
        hold(&spending, "broken", 100).settle_so_far(usd(70), row("broken", 70));
        hold(&spending, "whole", 100).settle_so_far(usd(5), row("whole", 5));
        flush(0);
        hold(&spending, "whole", 100).settle(usd(6), Some(row("whole", 11)));
        flush(1);
        if flushes & 4 != 0 {
            next_segment(&spending);
        }
        spending.abandon();
        open(folder.path()).close();
        let costs: Vec<u64> =
            calls(folder.path()).into_iter().map(|(_, _, cost)| cost).filter(|cost| *cost > 0).collect();
        assert_eq!((costs, check(folder.path())), (vec![70, 11], Findings::default()), "{flushes}");
    }
}

/// Until the journal goes on in a new file, and the one before is gone.
fn next_segment(spending: &Arc<Spending>) {
    let before = spending.lock().journal.position().segment;
    let long = "x".repeat(30_000);
    while spending.lock().journal.position().segment == before {
        drop(hold(spending, &long, 1).settle(usd(0), None));
        if spending.lock().journal.position().offset > SEGMENT_BYTES {
            spending.flush().unwrap();
        }
    }
    spending.flush().unwrap();
}

/// The journal did not take the end, and the store did.
#[test]
fn a_call_that_the_store_knows_has_no_other_row() {
    let folder = TempDir::new().unwrap();
    let spending = open(folder.path());
    hold(&spending, "known", 100).settle_so_far(usd(5), row("known", 5));
    let last = hold(&spending, "known", 100);
    let elsewhere = TempDir::new().unwrap();
    let other = Journal::begin(elsewhere.path(), 1).unwrap();
    let well = std::mem::replace(&mut spending.lock().journal, other);
    last.settle(usd(6), Some(row("known", 11)));
    spending.lock().journal = well;
    spending.flush().unwrap();
    spending.abandon();
    open(folder.path()).close();
    assert_eq!(calls(folder.path()), [("known".into(), "good".into(), 11)]);
}

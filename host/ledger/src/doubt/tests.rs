//! Holds of processes that died, and what is said of them.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use sluice_core::books::Mode;
use tempfile::TempDir;

use super::*;
use crate::budget::{Budget, Drawn};
use crate::checker::{Findings, Known};
use crate::hold::Attempt;
use crate::spending::Spending;
use crate::usage::Which;

const CAP: u64 = 1_000_000;

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("sluice.db")
}

fn drawn(name: &str, scope: &str) -> Drawn {
    let budget = Arc::new(Budget { name: name.into(), cap: usd(CAP), mode: Mode::Enforce });
    Drawn { budget, key: AccountKey { budget: name.into(), scope: scope.into(), start_s: 0 }, resets_s: None }
}

fn scopes() -> Scopes {
    [("keys", Scope::Key), ("runs", Scope::Run), ("all", Scope::All)]
        .map(|(name, scope)| (name.into(), scope))
        .into()
}

/// A process that dies with these holds on all three accounts.
fn dies_with(folder: &Path, boot: &str, holds: &[u64]) {
    let (spending, _) = Spending::open(folder, boot, 50).unwrap();
    let accounts = [drawn("keys", "k1"), drawn("runs", "k1/r1"), drawn("all", "")];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (number, amount) in holds.iter().enumerate() {
        let attempt =
            Attempt { request: format!("req-{number}").into(), name: "up/model-1".into(), at_ms: 40 };
        let mut hold = runtime.block_on(spending.hold(&accounts, usd(*amount), attempt)).unwrap();
        hold.sent();
        std::mem::forget(hold);
    }
    spending.abandon();
}

/// After recovery.
fn left_by(holds: &[u64], boot: &str) -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    dies_with(folder.path(), "boot-1", holds);
    let (spending, _) = Spending::open(folder.path(), boot, 60).unwrap();
    spending.close();
    let store = Store::open(&file(&folder)).unwrap();
    (folder, store)
}

fn resolve(store: &mut Store, id: i64, charge: Charge) -> Resolved {
    store.resolve(InDoubt::Hold(DoubtId(id)), charge, &scopes(), &|_| Ok(())).unwrap()
}

fn within(nanos: u64) -> Charge {
    Charge::Within(usd(nanos))
}

/// Settled and in doubt of each account.
fn spent(store: &Store) -> Vec<(u64, u64)> {
    let standings = store.accounts(None, 10).unwrap();
    standings.iter().map(|one| (one.vault.settled.nanos(), one.vault.in_doubt.nanos())).collect()
}

fn check(store: &Store) -> Findings {
    let caps = ["keys", "runs", "all"].map(|name| (name.into(), usd(CAP))).into();
    store.check(&Known { caps, scopes: scopes(), ..Known::default() }).unwrap()
}

#[test]
fn a_hold_in_doubt_is_listed_with_all_that_is_known() {
    let (_folder, store) = left_by(&[100, 200], "boot-1");
    let doubts = store.doubts(10).unwrap();
    assert_eq!(
        doubts.iter().map(|doubt| (doubt.id.0, doubt.amount.nanos())).collect::<Vec<_>>(),
        [(1, 100), (2, 200)]
    );
    let Doubt { request, attempt, since_ms, accounts, .. } = &doubts[0];
    assert_eq!((&**request, &**attempt, *since_ms), ("req-0", "up/model-1", 40));
    let mut names: Vec<_> = accounts.iter().map(|(_, key)| (&*key.budget, &*key.scope)).collect();
    names.sort_unstable();
    assert_eq!(names, [("all", ""), ("keys", "k1"), ("runs", "k1/r1")]);
    assert_eq!(store.doubts(1).unwrap().len(), 1);
    assert_eq!(store.remainders().unwrap(), []);
}

#[test]
fn what_it_cost_is_settled_everywhere_and_in_the_ledger() {
    let (_folder, mut store) = left_by(&[100, 200], "boot-1");
    assert_eq!(resolve(&mut store, 1, within(70)), Resolved::Done { held: usd(100) });
    assert_eq!(spent(&store), [(70, 200); 3]);
    let calls = store.calls(&Which::default(), 10).unwrap();
    let row = Row {
        at_ms: 40,
        request: "req-0".into(),
        key: "k1".into(),
        run: "r1".into(),
        upstream: "up".into(),
        target_model: "model-1".into(),
        cost: 70,
        outcome: OUTCOME_RESOLVED.into(),
        basis: BASIS_OPERATOR.into(),
        ..Row::default()
    };
    assert_eq!(calls, [row]);
    assert_eq!(store.doubts(10).unwrap().len(), 1);
    assert_eq!(check(&store), Findings::default());
}

#[test]
fn a_charge_beyond_what_was_held_has_to_be_meant() {
    let (_folder, mut store) = left_by(&[100], "boot-1");
    assert_eq!(resolve(&mut store, 1, within(101)), Resolved::Beyond { held: usd(100) });
    assert_eq!(spent(&store), [(0, 100); 3]);
    assert_eq!(resolve(&mut store, 1, Charge::Any(usd(101))), Resolved::Done { held: usd(100) });
    assert_eq!(spent(&store), [(101, 0); 3]);
    assert_eq!(check(&store), Findings::default());
}

#[test]
fn a_number_is_known_unknown_or_done_and_never_given_twice() {
    let (folder, mut store) = left_by(&[100, 200], "boot-1");
    assert_eq!(resolve(&mut store, 3, within(0)), Resolved::Unknown);
    assert_eq!(resolve(&mut store, 0, within(0)), Resolved::Unknown);
    assert_eq!(resolve(&mut store, -1, within(0)), Resolved::Unknown);
    for id in [2, 1] {
        assert_eq!(resolve(&mut store, id, within(100)), Resolved::Done { held: usd(100 * id as u64) });
        assert_eq!(resolve(&mut store, id, within(100)), Resolved::Already);
    }
    assert_eq!(spent(&store), [(200, 0); 3]);
    drop(store);
    dies_with(folder.path(), "boot-1", &[300]);
    let (spending, _) = Spending::open(folder.path(), "boot-1", 60).unwrap();
    spending.close();
    let mut store = Store::open(&file(&folder)).unwrap();
    assert_eq!(store.doubts(10).unwrap()[0].id, DoubtId(3));
    assert_eq!(
        resolve(&mut store, 2, within(0)),
        Resolved::Already,
        "a command that is repeated hits nothing"
    );
}

#[test]
fn without_a_note_of_it_nothing_is_resolved() {
    let (_folder, mut store) = left_by(&[100], "boot-1");
    let full = |_: &Batch<'_>| Err(StoreError::Full);
    assert!(store.resolve_doubt(DoubtId(1), within(70), &scopes(), &full).is_err());
    assert_eq!((spent(&store), store.doubts(10).unwrap().len()), (vec![(0, 100); 3], 1));
    assert_eq!(store.calls(&Which::default(), 10).unwrap(), []);
    let written = Cell::new(0);
    let note = |batch: &Batch<'_>| {
        written.set(written.get() + 1);
        batch.set_meta("note", "it is in the same transaction")
    };
    for _ in 0..2 {
        let _ = store.resolve_doubt(DoubtId(1), within(70), &scopes(), &note).unwrap();
    }
    assert_eq!(written.get(), 1, "what is refused leaves no note");
    assert!(store.batch().unwrap().meta("note").unwrap().is_some());
}

#[test]
fn a_charge_that_does_not_fit_changes_nothing() {
    let (_folder, mut store) = left_by(&[100], "boot-1");
    for charge in [u64::MAX, i64::MAX as u64 + 1] {
        let answer = store.resolve_doubt(DoubtId(1), Charge::Any(usd(charge)), &scopes(), &|_| Ok(()));
        assert!(matches!(answer, Err(StoreError::Overflow)));
    }
    assert_eq!((spent(&store), store.doubts(10).unwrap().len()), (vec![(0, 100); 3], 1));
}

#[test]
fn a_number_is_read_as_it_is_shown() {
    for text in ["12", "rest-3", "-1"] {
        assert_eq!(text.parse::<InDoubt>().map(|what| what.to_string()).as_deref(), Ok(text));
    }
    for text in ["", "-", "rest", "rest-", "rest-x", "1 ", "REST-1", "99999999999999999999"] {
        assert_eq!(text.parse::<InDoubt>(), Err(NotInDoubt), "{text:?}");
    }
}

#[test]
fn after_a_power_loss_the_remainder_of_each_account_is_resolved_by_itself() {
    let (_folder, mut store) = left_by(&[100], "boot-2");
    let remainders = store.remainders().unwrap();
    assert_eq!(remainders.len(), 3);
    let Remainder { account, amount, .. } = remainders[0].clone();
    let all = amount.nanos() + 100;
    assert!(spent(&store).contains(&(0, all)));
    let what: InDoubt = format!("rest-{}", account.0).parse().unwrap();
    assert_eq!((what, what.to_string()), (InDoubt::Rest(account), format!("rest-{}", account.0)));
    let mut rest = |charge| store.resolve(what, charge, &scopes(), &|_| Ok(())).unwrap();
    assert_eq!(rest(within(amount.nanos() + 1)), Resolved::Beyond { held: amount });
    assert_eq!(rest(within(5)), Resolved::Done { held: amount });
    assert_eq!(rest(within(5)), Resolved::Already);
    assert_eq!(store.resolve_rest(AccountId(99), within(0), &|_| Ok(())).unwrap(), Resolved::Unknown);
    assert_eq!(store.remainders().unwrap().len(), 2);
    // The hold is as it was.
    assert_eq!(resolve(&mut store, 1, within(100)), Resolved::Done { held: usd(100) });
    assert!(spent(&store).contains(&(105, 0)));
    assert_eq!(store.calls(&Which::default(), 10).unwrap().len(), 1, "a remainder is no call");
}

#[test]
fn a_gateway_that_runs_learns_of_it_before_it_refuses() {
    let folder = TempDir::new().unwrap();
    dies_with(folder.path(), "boot-1", &[CAP]);
    let (spending, _) = Spending::open(folder.path(), "boot-1", 60).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let accounts = [drawn("keys", "k1"), drawn("runs", "k1/r1"), drawn("all", "")];
    let hold = |amount| runtime.block_on(spending.hold(&accounts, usd(amount), Attempt::default()));
    assert!(hold(1).is_err());
    let mut store = Store::open(&file(&folder)).unwrap();
    assert_eq!(resolve(&mut store, 1, within(CAP - 10)), Resolved::Done { held: usd(CAP) });
    assert!(hold(11).is_err());
    drop(hold(10).unwrap());
    spending.close();
}

#[test]
fn what_is_held_when_a_debt_has_eaten_the_lease_is_in_doubt() {
    let folder = TempDir::new().unwrap();
    let (spending, _) = Spending::open(folder.path(), "boot-1", 50).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hold = |amount| runtime.block_on(spending.hold(&[drawn("all", "")], usd(amount), Attempt::default()));
    let (one, mut other) = (hold(100).unwrap(), hold(100).unwrap());
    other.sent();
    one.settle(usd(CAP), None);
    spending.flush().unwrap();
    std::mem::forget(other);
    spending.abandon();
    let (spending, found) = Spending::open(folder.path(), "boot-1", 60).unwrap();
    spending.close();
    assert_eq!((found.in_doubt, found.amount), (1, usd(100)));
    let mut store = Store::open(&file(&folder)).unwrap();
    assert_eq!(spent(&store), [(CAP, 100)]);
    assert_eq!(resolve(&mut store, 1, within(60)), Resolved::Done { held: usd(100) });
    assert_eq!(spent(&store), [(CAP + 60, 0)]);
}

#[test]
fn an_account_that_is_lost_does_not_keep_a_hold_in_doubt() {
    let (_folder, mut store) = left_by(&[100], "boot-1");
    store.connection().execute_batch("DELETE FROM accounts WHERE budget = 'runs'").unwrap();
    assert!(
        check(&store).list.iter().any(|found| matches!(found, crate::checker::Finding::NoAccount { .. }))
    );
    assert_eq!(store.doubts(1).unwrap()[0].accounts.len(), 2);
    assert_eq!(resolve(&mut store, 1, within(70)), Resolved::Done { held: usd(100) });
    assert_eq!(spent(&store), [(70, 0); 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However many holds are resolved, in whatever order and however often: each charge is settled
    /// once, and the rest stays in doubt.
    #[test]
    fn each_charge_is_settled_once(
        holds in prop::collection::vec(1_u64..1000, 1..6),
        said in prop::collection::vec((1_i64..8, 0_u64..1200), 0..12),
    ) {
        let (_folder, mut store) = left_by(&holds, "boot-1");
        let mut open: BTreeMap<i64, u64> = (1..).zip(holds.iter().copied()).collect();
        let mut settled = 0;
        for (id, charge) in said {
            let answer = resolve(&mut store, id, within(charge));
            match open.get(&id).copied() {
                Some(held) if charge <= held => {
                    prop_assert_eq!(answer, Resolved::Done { held: usd(held) });
                    open.remove(&id);
                    settled += charge;
                }
                Some(held) => prop_assert_eq!(answer, Resolved::Beyond { held: usd(held) }),
                None if id as usize <= holds.len() => prop_assert_eq!(answer, Resolved::Already),
                None => prop_assert_eq!(answer, Resolved::Unknown),
            }
            prop_assert_eq!(spent(&store), [(settled, open.values().sum()); 3]);
            prop_assert_eq!(check(&store), Findings::default());
        }
    }
}

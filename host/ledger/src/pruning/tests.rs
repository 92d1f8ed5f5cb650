//! What has ended, a second too young and a second old enough.

use serde_json::json;
use sluice_core::money::NanoUsd;
use tempfile::TempDir;

use super::*;
use crate::audit::Act;
use crate::budget::AccountKey;
use crate::checker::{Findings, Known};
use crate::keys::KeyStore;
use crate::keys::acts::Created;
use crate::keys::terms::Draft;
use crate::rows::Row;
use crate::usage::{Query, Which};

const NOW_S: i64 = 1000 * DAY_S;

fn empty() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("sluice.db")).unwrap();
    (folder, store)
}

/// An account on which five nano-dollars are settled, and a call that cost them.
fn account(batch: &Batch<'_>, budget: &str, scope: &str, ends_s: Option<i64>) -> i64 {
    let key = AccountKey { budget: budget.into(), scope: scope.into(), start_s: 0 };
    let id = batch.account(&key).unwrap().id;
    batch.set_end(id, ends_s).unwrap();
    batch.settle("0", id, NanoUsd::from_nanos(5)).unwrap();
    batch.add_rows(&[Row { key: scope.into(), cost: 5, ..Row::default() }]).unwrap();
    id.0
}

fn run(batch: &Batch<'_>, scope: &str, ended_s: Option<i64>) -> i64 {
    let add =
        "INSERT INTO runs (scope, budget, used_s, ended_s, ended_by) VALUES (?1, 'runs', 0, ?2, 'idle')";
    batch.connection().execute(add, params![scope, ended_s]).unwrap();
    account(batch, "runs", scope, None)
}

fn scopes(store: &Store) -> Vec<String> {
    let mut scopes: Vec<String> =
        store.accounts(None, 100).unwrap().iter().map(|one| one.key.scope.to_string()).collect();
    scopes.sort_unstable();
    scopes
}

fn cost(store: &Store) -> u64 {
    let query = Query { by: Vec::new(), which: Which::default(), limit: 1 };
    store.usage(&query).unwrap().rows[0].cost.nanos()
}

#[test]
fn windows_that_ended_long_ago_go_and_what_they_came_to_stays() {
    let (_folder, mut store) = empty();
    let batch = store.batch().unwrap();
    let end = |young_s: i64| Some(NOW_S - WINDOW_KEPT_S + young_s);
    account(&batch, "days", "old", end(-1));
    account(&batch, "days", "young", end(0));
    account(&batch, "days", "without end", None);
    let leased = account(&batch, "days", "leased", end(-1));
    batch.connection().execute("INSERT INTO leases VALUES (?1, '0', 1)", [leased]).unwrap();
    let doubt = account(&batch, "days", "in doubt", end(-1));
    batch.connection().execute("UPDATE accounts SET in_doubt = 1 WHERE id = ?1", [doubt]).unwrap();
    account(&batch, "all", "the last", end(-1));
    batch.commit().unwrap();
    assert_eq!(prune(&mut store, NOW_S).unwrap(), Pruned { accounts: 1, ..Pruned::default() });
    assert_eq!(scopes(&store), ["in doubt", "leased", "the last", "without end", "young"]);
    assert_eq!(cost(&store), 6 * 5);
    assert_eq!(prune(&mut store, NOW_S).unwrap(), Pruned::default());
    let key = crate::budget::Scope::Key;
    let known = Known { scopes: [("days".into(), key)].into(), ..Known::default() };
    let unchecked = Findings { unchecked: vec!["days".into()], ..Findings::default() };
    let found = store.check(&known).unwrap();
    assert_eq!(found.unchecked, unchecked.unchecked, "what has gone is no finding");
}

#[test]
fn tombstones_go_after_their_time_with_their_accounts() {
    let (_folder, mut store) = empty();
    let batch = store.batch().unwrap();
    let end = |young_s: i64| Some(NOW_S - RUN_KEPT_S + young_s);
    run(&batch, "k/old", end(-1));
    run(&batch, "k/young", end(0));
    run(&batch, "k/open", None);
    let doubt = run(&batch, "k/in doubt", end(-1));
    batch.connection().execute("UPDATE accounts SET in_doubt = 1 WHERE id = ?1", [doubt]).unwrap();
    run(&batch, "k/the last", end(-1));
    batch.commit().unwrap();
    assert_eq!(prune(&mut store, NOW_S).unwrap(), Pruned { runs: 1, ..Pruned::default() });
    let runs = |store: &Store| {
        let mut runs: Vec<String> =
            store.runs(None, true, 100).unwrap().iter().map(|one| one.run.name().to_owned()).collect();
        runs.sort_unstable();
        runs
    };
    let wanted = ["in doubt", "open", "the last", "young"];
    assert_eq!(runs(&store), wanted);
    assert_eq!(scopes(&store), wanted.map(|name| format!("k/{name}")), "as many accounts");
    assert_eq!(cost(&store), 5 * 5);
    // Once nothing is in doubt any more, it goes; and the last one, when there is another.
    let batch = store.batch().unwrap();
    batch.connection().execute("UPDATE accounts SET in_doubt = 0", []).unwrap();
    account(&batch, "all", "next", None);
    batch.commit().unwrap();
    assert_eq!(prune(&mut store, NOW_S).unwrap(), Pruned { runs: 2, ..Pruned::default() });
    assert_eq!(runs(&store), ["open", "young"]);
}

#[test]
fn more_than_a_step_goes_in_several() {
    let (_folder, mut store) = empty();
    let batch = store.batch().unwrap();
    let count = u64::from(ROWS_MAX) + 5;
    for number in 0..=count {
        run(&batch, &format!("k/{number}"), Some(0));
    }
    batch.commit().unwrap();
    let first = prune(&mut store, NOW_S).unwrap();
    assert_eq!((first.runs, first.is_cut()), (ROWS_MAX.into(), true));
    let second = prune(&mut store, NOW_S).unwrap();
    assert_eq!((second.runs, second.is_cut(), scopes(&store).len()), (5, false, 1));
}

#[test]
fn keys_go_a_year_after_they_were_revoked_and_their_accounts_later() {
    let folder = TempDir::new().unwrap();
    let mut keys = KeyStore::open(&folder.path().join("sluice.db")).unwrap();
    let mut key = |name: &str, revoked_s: Option<i64>| {
        let draft = Draft { name: name.into(), ..Draft::default() };
        let Created::Done { record, .. } = keys.create("cli", &draft, 1).unwrap() else { panic!("no key") };
        if let Some(at_s) = revoked_s {
            let _ = keys.revoke("cli", record.id, at_s as u64 * 1000).unwrap();
        }
        record.id.as_str().to_owned()
    };
    let old = key("old", Some(NOW_S - KEY_KEPT_S - 1));
    let young = key("young", Some(NOW_S - KEY_KEPT_S));
    let good = key("good", None);
    let store = keys.store();
    let batch = store.batch().unwrap();
    for id in [&old, &young, &good] {
        account(&batch, "keys", id, None);
        account(&batch, "runs", &format!("{id}/"), None);
    }
    account(&batch, "all", "", None);
    batch.commit().unwrap();
    assert_eq!(prune(store, NOW_S).unwrap(), Pruned { keys: 1, ..Pruned::default() });
    assert_eq!(prune(store, NOW_S + WINDOW_KEPT_S).unwrap().accounts, 0);
    assert_eq!(prune(store, NOW_S + WINDOW_KEPT_S + 1).unwrap().accounts, 2);
    let left = scopes(store);
    assert!(!left.iter().any(|scope| scope.starts_with(&old)), "{left:?}");
    assert!(left.contains(&good) && left.contains(&format!("{young}/")), "{left:?}");
    let ids: Vec<String> =
        keys.list().unwrap().records.iter().map(|key| key.id.as_str().to_owned()).collect();
    assert_eq!(ids.len(), 1, "the young one has gone by now: {ids:?}");
    assert_eq!(ids, [good]);
}

#[test]
fn the_newest_acts_are_kept() {
    let (_folder, mut store) = empty();
    let batch = store.batch().unwrap();
    for number in 0..u64::from(ACTS_KEPT) + 3 {
        let detail = json!({});
        let act =
            Act { at_ms: number, actor: "cli", act: "a", subject: "s", detail: &detail, outcome: "done" };
        batch.add_act(&act).unwrap();
    }
    batch.commit().unwrap();
    assert_eq!(prune(&mut store, 0).unwrap(), Pruned { acts: 3, ..Pruned::default() });
    let count = "SELECT count(*), min(at_ms) FROM audit";
    let left: (u32, u32) =
        store.connection().query_row(count, [], |found| Ok((found.get(0)?, found.get(1)?))).unwrap();
    assert_eq!(left, (ACTS_KEPT, 3));
    assert_eq!(prune(&mut store, 0).unwrap(), Pruned::default());
}

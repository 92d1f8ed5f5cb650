//! A ledger that agrees with itself, and one thing at a time that does not.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::rows::Row;

fn usd(nanos: u64) -> NanoUsd {
    NanoUsd::from_nanos(nanos)
}

fn key(budget: &str, scope: &str, start_s: i64) -> AccountKey {
    AccountKey { budget: budget.into(), scope: scope.into(), start_s }
}

fn known(cap: u64) -> Known {
    let scopes = [("keys", Scope::Key), ("runs", Scope::Run), ("all", Scope::All)];
    Known {
        caps: scopes.map(|(name, _)| (name.into(), usd(cap))).into(),
        scopes: scopes.map(|(name, scope)| (name.into(), scope)).into(),
        gateway: Gateway::Down,
    }
}

/// Calls of these keys and costs, on two days, settled on accounts by key, by run, and for all.
fn ledger(calls: &[(&str, u64)]) -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(&folder.path().join("sluice.db")).unwrap();
    let batch = store.batch().unwrap();
    for (number, (name, cost)) in calls.iter().enumerate() {
        let day = number as u64 % 2;
        let row =
            Row { at_ms: day * DAY_MS, key: (*name).into(), run: "r".into(), cost: *cost, ..Row::default() };
        batch.add_rows(&[row]).unwrap();
        // A window for each day.
        for key in [key("keys", name, day as i64), key("runs", &format!("{name}/r"), 0), key("all", "", 0)] {
            let account = batch.account(&key).unwrap();
            batch.add_lease("0", account.id, usd(cost + 1)).unwrap();
            batch.settle("0", account.id, usd(*cost)).unwrap();
            batch.give_back("0", account.id, usd(1)).unwrap();
        }
    }
    batch.commit().unwrap();
    (folder, store)
}

fn after(change: &str, known: &Known) -> Vec<Finding> {
    let (_folder, store) = ledger(&[("a", 10), ("b", 20), ("a", 30)]);
    assert_eq!(store.check(known).unwrap(), Findings::default(), "the control");
    store.connection().pragma_update(None, "foreign_keys", false).unwrap();
    store.connection().execute_batch(change).unwrap();
    store.check(known).unwrap().list
}

#[test]
fn a_charge_without_its_call_and_a_call_without_its_charge_are_found() {
    let more = after("UPDATE accounts SET settled = settled + 1 WHERE scope = 'a/r'", &known(100));
    let of = |budget: &str, scope: &str, settled, calls| Finding::Settled {
        budget: budget.into(),
        scope: scope.into(),
        settled: usd(settled),
        calls: usd(calls),
    };
    assert_eq!(more, [of("runs", "a/r", 41, 40)]);
    let less =
        after("UPDATE accounts SET settled = settled - 1 WHERE scope = 'a' AND start_s = 0", &known(100));
    assert_eq!(less, [of("keys", "a", 39, 40)], "over its windows");
    let none = after("DELETE FROM calls WHERE cost = 20; DELETE FROM usage WHERE cost = 20", &known(100));
    assert_eq!(none, [of("all", "", 60, 40), of("keys", "b", 20, 0), of("runs", "b/r", 20, 0)]);
}

#[test]
fn calls_that_do_not_add_up_to_the_sums_are_found() {
    let of =
        |day: &str, calls, usage| Finding::Sums { day: day.into(), calls: usd(calls), usage: usd(usage) };
    let lost = after("DELETE FROM calls WHERE cost = 20", &known(100));
    assert_eq!(lost, [of("1970-01-02", 0, 20)]);
    let twice = after("INSERT INTO calls SELECT * FROM calls WHERE cost = 10", &known(100));
    assert_eq!(twice, [of("1970-01-01", 50, 40)]);
}

#[test]
fn caps_leases_and_signs_are_found() {
    let found = after("SELECT 1", &known(60));
    assert_eq!(found, [], "up to its cap");
    let found = after("UPDATE accounts SET in_doubt = 1 WHERE budget = 'all'", &known(60));
    assert_eq!(found, [Finding::OverCap { account: key("all", "", 0), cap: usd(60), spent: usd(61) }]);
    let lease = "INSERT INTO leases SELECT id, '0', 7 FROM accounts WHERE scope = 'a/r'";
    assert_eq!(
        after(lease, &known(100)),
        [Finding::Leased { account: key("runs", "a/r", 0), leased: usd(7) }]
    );
    assert_eq!(after(lease, &Known { gateway: Gateway::Up, ..known(100) }), []);
    let found = after("UPDATE accounts SET in_doubt = -1 WHERE budget = 'all'", &known(100));
    assert_eq!(found, [Finding::Negative { table: "accounts", rows: 1 }]);
}

#[test]
fn holds_that_accounts_do_not_have_in_doubt_are_found() {
    let doubt = "UPDATE accounts SET in_doubt = 8; \
         INSERT INTO in_doubt SELECT 5, 'r', 'a', 8, group_concat(id, ' '), 0 FROM accounts";
    assert_eq!(after(doubt, &known(100)), []);
    let found =
        after(&format!("{doubt}; UPDATE accounts SET in_doubt = 7 WHERE budget = 'all'"), &known(100));
    let (holds, in_doubt) = (usd(8), usd(7));
    assert_eq!(found, [Finding::DoubtBeyond { account: key("all", "", 0), holds, in_doubt }]);
    let found = after("INSERT INTO in_doubt VALUES (5, 'r', 'a', 8, '77', 0)", &known(100));
    assert_eq!(found, [Finding::NoAccount { doubt: DoubtId(5), account: AccountId(77) }]);
}

#[test]
fn a_damaged_file_is_found() {
    let (folder, store) = ledger(&[("a", 1); 200]);
    store.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(store);
    let file = folder.path().join("sluice.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let calls: i64 = {
        let store = Store::open_to_read(&file).unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'calls_at'";
        store.connection().query_row(root, [], |found| found.get(0)).unwrap()
    };
    // The index's root says that it has other cells.
    let at = (calls as usize - 1) * 4096;
    bytes[at + 3..at + 5].copy_from_slice(&[0, 1]);
    std::fs::write(&file, bytes).unwrap();
    let found = Store::open(&file).unwrap().check(&known(1000)).unwrap();
    assert!(found.list.iter().any(|finding| matches!(finding, Finding::Damaged(_))), "{found:?}");
}

#[test]
fn a_list_has_an_end() {
    let calls = vec![("a", 1); 3];
    let (_folder, store) = ledger(&calls);
    let many = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i <= 1000) \
         INSERT INTO accounts (budget, scope, start_s, settled) SELECT 'keys', 'x' || i, 0, 5 FROM n";
    store.connection().execute_batch(many).unwrap();
    let found = store.check(&known(100)).unwrap();
    assert_eq!((found.list.len(), found.cut), (FINDINGS_MAX, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever calls there were, what was written by the rules agrees; a charge that is a nano-dollar
    /// off does not.
    #[test]
    fn only_what_is_wrong_is_found(
        calls in prop::collection::vec((prop::sample::select(vec!["", "a", "b"]), 1_u64..1_000_000_000), 1..20),
        off in 0_usize..20,
    ) {
        let (_folder, store) = ledger(&calls);
        prop_assert_eq!(store.check(&known(u64::MAX)).unwrap(), Findings::default());
        let wrong = "UPDATE accounts SET settled = settled + 1 WHERE id = (SELECT id FROM accounts LIMIT 1 OFFSET ?1)";
        let accounts: i64 = store.connection().query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap();
        store.connection().execute(wrong, [off as i64 % accounts]).unwrap();
        prop_assert_eq!(store.check(&known(u64::MAX)).unwrap().list.len(), 1);
    }
}

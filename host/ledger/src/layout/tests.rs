//! A database of each earlier layout, as that version would have left it.

use std::path::PathBuf;

use sluice_core::books::AccountId;
use tempfile::TempDir;

use super::*;
use crate::rules::{Rules, RunRules};
use crate::spending::Spending;
use crate::store::Store;

/// Of layout 1, what differs.
const ACCOUNTS_1: &str = "
DROP TABLE market_jobs;
DROP TABLE secrets;
DROP TABLE runs;
DROP TABLE accounts;
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    budget TEXT NOT NULL,
    scope TEXT NOT NULL,
    start_s INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    in_doubt INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (budget, scope, start_s)
) STRICT;
INSERT INTO accounts (budget, scope, start_s, settled) VALUES
    ('days', 'k', 86400, 5), ('runs', 'k/r', 0, 7), ('runs', 'k/', 0, 9), ('models', 'a/b', 0, 11);
PRAGMA user_version = 1;
";

/// Of layout 2, what differs.
const LAYOUT_2: &str = "
DROP TABLE market_jobs;
DROP TABLE secrets;
INSERT INTO accounts (budget, scope, start_s, settled) VALUES ('days', 'k', 86400, 5);
PRAGMA user_version = 2;
";

fn old() -> (TempDir, PathBuf) {
    made_old(ACCOUNTS_1)
}

fn made_old(how: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("sluice.db");
    let store = Store::open(&file).unwrap();
    store.connection().pragma_update(None, "foreign_keys", false).unwrap();
    store.connection().execute_batch(how).unwrap();
    (folder, file)
}

/// Tables with their columns, and indexes.
fn parts(store: &Store) -> Vec<String> {
    let text = "SELECT m.name || ' ' || coalesce(group_concat(c.name || c.type || c.\"notnull\" || c.pk), m.sql) \
         FROM sqlite_master m LEFT JOIN pragma_table_info(m.name) c \
         WHERE m.name NOT LIKE 'sqlite_%' GROUP BY m.name ORDER BY 1";
    let mut parts = store.connection().prepare(text).unwrap();
    parts.query_map([], |found| found.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn an_old_database_becomes_as_a_new_one_and_keeps_its_money() {
    let (_folder, file) = old();
    let store = Store::open(&file).unwrap();
    let fresh = TempDir::new().unwrap();
    let wanted = parts(&Store::open(&fresh.path().join("sluice.db")).unwrap());
    assert_eq!(parts(&store), wanted);
    let accounts = store.accounts(None, 10).unwrap();
    let spent: Vec<u64> = accounts.iter().map(|one| one.vault.settled.nanos()).collect();
    assert_eq!(spent, [5, 11, 9, 7], "by budget and scope");
    let end = "SELECT ends_s FROM accounts ORDER BY id";
    let mut end = store.connection().prepare(end).unwrap();
    let ends: Vec<Option<i64>> =
        end.query_map([], |found| found.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(ends, [Some(86_400 + 40 * 86_400), None, None, None]);
    drop(end);
    // Once.
    drop(store);
    assert_eq!(parts(&Store::open(&file).unwrap()), wanted);
    assert_eq!(accounts[0].id, AccountId(1));
}

#[test]
fn a_database_of_layout_2_gets_what_is_new_and_keeps_what_it_has() {
    let (_folder, file) = made_old(LAYOUT_2);
    let store = Store::open(&file).unwrap();
    let fresh = TempDir::new().unwrap();
    assert_eq!(parts(&store), parts(&Store::open(&fresh.path().join("sluice.db")).unwrap()));
    let accounts = store.accounts(None, 10).unwrap();
    assert_eq!(accounts.iter().map(|one| one.vault.settled.nanos()).collect::<Vec<_>>(), [5]);
    drop(store);
    assert!(Store::open(&file).is_ok(), "once");
}

#[test]
fn runs_of_an_old_database_begin_to_rest_when_a_gateway_knows_that_they_are_runs() {
    let (folder, file) = old();
    let (spending, _) = Spending::open(folder.path(), "boot", 1).unwrap();
    spending.keep_clock(1000);
    let runs = RunRules { idle_s: 100, runs_max: 10 };
    spending.follow(Box::new(move || Rules { runs: [("runs".into(), runs)].into(), ..Rules::default() }));
    let store = Store::open(&file).unwrap();
    let since = std::time::Instant::now();
    let runs = loop {
        let runs = store.runs(None, true, 10).unwrap();
        if !runs.is_empty() {
            break runs;
        }
        assert!(since.elapsed().as_secs() < 60, "they are adopted");
    };
    let runs: Vec<_> = runs.iter().map(|run| (run.run.name(), run.used_s, run.ended)).collect();
    assert_eq!(runs, [("r", 1000, None)]);
    spending.close();
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let (_folder, file) = old();
    let store = Store::open(&file).unwrap();
    store.connection().pragma_update(None, "user_version", LAYOUT + 1).unwrap();
    drop(store);
    assert!(matches!(Store::open(&file).err(), Some(StoreError::Newer { found }) if found == LAYOUT + 1));
}
